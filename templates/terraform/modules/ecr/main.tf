# Repositories of the account, and caches of public ones, so that nodes without a way to the internet can pull.

resource "aws_ecr_repository" "this" {
  for_each = toset(var.ecr_repositories)

  name = each.key
  # A tag that always means the same image: what a job ran yesterday, it runs tomorrow.
  image_tag_mutability = "IMMUTABLE"
  tags                 = var.tags

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = var.kms_key_arn == null ? "AES256" : "KMS"
    kms_key         = var.kms_key_arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each = aws_ecr_repository.this

  repository = each.value.name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "keep the newest images"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = var.kept_images }
      action       = { type = "expire" }
    }]
  })
}

resource "aws_ecr_pull_through_cache_rule" "this" {
  for_each = var.pull_through_caches

  ecr_repository_prefix = each.key
  upstream_registry_url = each.value.upstream_registry_url
  credential_arn        = each.value.credential_arn
}

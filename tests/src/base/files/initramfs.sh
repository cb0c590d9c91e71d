#!/bin/sh
# Before the kernel is installed: an initial file system with only what such a machine boots from.
set -eu
root=$1
mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/etc/initramfs-tools/hooks"
echo 'MODULES=list' > "$root/etc/initramfs-tools/conf.d/machine"
cat > "$root/etc/initramfs-tools/hooks/machine" <<'HOOK'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules nvme virtio_pci virtio_net virtio_console virtio_rng ext4 crc32c_generic
HOOK
chmod 755 "$root/etc/initramfs-tools/hooks/machine"

"""Gives logins for ECR that hold: moto's ended in 2015, so whoever keeps them would ask again every time."""

from datetime import datetime, timedelta, timezone

from cos_wire import patch
from moto.ecr.responses import ECRResponse

LIFE = timedelta(hours=12)


def install():
    @patch(ECRResponse, "get_authorization_token")
    def get_authorization_token(original, self):
        answer = original(self)
        for login in answer.result["authorizationData"]:
            login["expiresAt"] = datetime.now(timezone.utc) + LIFE
        return answer

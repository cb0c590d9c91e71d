"""Starts moto's server with our changes to its models.

Where moto only pretends, the files beside this one replace its methods and hand the act to the executor of the
sandbox over a Unix socket. One file per service; each has `install()`.
"""

import ctypes
import logging
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def main():
    # moto must not outlive the sandbox, also when that is killed (PR_SET_PDEATHSIG).
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)

    import cos_ebs
    import cos_ecr
    import cos_images
    import cos_instances
    import cos_scaling
    import cos_ssm
    import cos_start
    import cos_state
    import cos_volumes

    parts = (cos_volumes, cos_images, cos_instances, cos_scaling, cos_ebs, cos_ecr, cos_ssm, cos_state, cos_start)
    for part in parts:
        part.install()

    from moto.server import main as serve

    # HTTP/1.1 keeps the front's connections open; werkzeug's default closes each one.
    from werkzeug.serving import WSGIRequestHandler

    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    serve(sys.argv[1:])


if __name__ == "__main__":
    main()

"""The language that all parts of BEC share: messages, endpoints, broker, service frame, device and scan
vocabulary.

Imports no service. `PRODUCT` tells this package from other distributions that install a package of the same
name; `deploy.own_library` refuses to run anything when it is missing.
"""

PRODUCT = "bec-beamline-experiment-control"
PROTOCOL_VERSION = 1

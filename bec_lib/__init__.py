"""The shared language of BEC: messages, endpoints, broker, service frame, devices, scans."""

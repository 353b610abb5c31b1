"""A controller that speaks Grbl 1.1, without a machine: to try the driver `grbl`, and to test what drives one. Written from the protocol's documentation.

`firmware.py` is the controller, `parser.py` its G-code, `planner.py` its motion, `serve.py` puts it behind a pseudo-terminal or a TCP port.
`python -m sdk.grbl_peer` runs one. It is stricter than a controller in one thing: it keeps count of bytes that its receive buffer had no room for.
"""

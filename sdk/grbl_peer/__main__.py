"""`python -m sdk.grbl_peer`: a Grbl 1.1 controller without a machine, until it is interrupted."""

import argparse
import signal
from pathlib import Path

from sdk.grbl_peer.firmware import Firmware
from sdk.grbl_peer.serve import Cable, Peer, PtyCable, TcpCable


def main() -> None:
    """Prints the port that `[drivers.grbl]` takes, and serves."""
    arguments = argparse.ArgumentParser(prog="python -m sdk.grbl_peer", description=__doc__)
    arguments.add_argument(
        "--tcp", type=int, metavar="PORT", help="serve on this TCP port of 127.0.0.1 (0: any) and not on a pseudo-terminal"
    )
    arguments.add_argument(
        "--pty", type=Path, default=Path("grbl-peer"), metavar="LINK", help="symbolic link to the pseudo-terminal (default: grbl-peer)"
    )
    arguments.add_argument("--speed", type=float, default=1.0, help="how many times faster than its feed it moves")
    chosen = arguments.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there is a thread that would get them
    cable: Cable = PtyCable(chosen.pty.absolute()) if chosen.tcp is None else TcpCable(chosen.tcp)
    with Peer(Firmware(speed=chosen.speed), cable):
        print(f'port = "{cable.url}"', flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()

"""`python -m minicoil` and the `minicoil` command: Ctrl-C is one line also while the rest is loaded."""
import os
import signal  # no more than these: until `main` has begun, Ctrl-C is Python's own


def stop_at_once(number: int, frame: object) -> None:
    """Leave as the command line does after Ctrl-C. Nothing was begun, so nothing has to be undone."""
    try:
        os.write(2, b"minicoil: stopped; the same command begins again, and nothing was left half-written\n")
    finally:  # also where nobody can be told
        os._exit(130)


def main() -> None:
    """Load the command line, and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop_at_once)
    from minicoil.commands.pipeline import main as command_line
    signal.signal(signal.SIGINT, before)
    command_line()


if __name__ == "__main__":
    main()

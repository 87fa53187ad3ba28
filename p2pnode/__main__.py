"""Where the `p2pnode` command begins; also `python -m p2pnode`."""

import time


def main() -> None:
    """Run the command line. Loading it is part of what the user waits for, so the clock starts before."""
    began = time.time()
    from p2pnode.cli import app, run
    from p2pnode.completion import complete

    complete(app)
    run(began)


if __name__ == "__main__":
    main()

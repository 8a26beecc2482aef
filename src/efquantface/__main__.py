"""``python -m efquantface`` and the script ``efq``; they handle Ctrl-C from the start."""

from efquantface.stopping import CODE, finished, leave, listen, told


def main() -> None:
    """Run the command line; when stopped, end at once with exit code 130."""
    listen()
    try:
        from efquantface.cli.main import main as run

        run()
    except BaseException as error:
        if told() or (isinstance(error, SystemExit) and error.code == CODE):
            leave()
        raise
    finally:
        finished()


if __name__ == "__main__":
    main()

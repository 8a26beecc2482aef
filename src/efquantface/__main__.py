"""``python -m efquantface``."""

from efquantface.cli.main import main

if __name__ == "__main__":
    main()

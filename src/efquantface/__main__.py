"""``python -m efquantface``."""

from efquantface.cli import main

if __name__ == "__main__":
    main()

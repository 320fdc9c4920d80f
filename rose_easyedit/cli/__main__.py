"""`python -m rose_easyedit.cli`: the same as `rose-edit`."""

from rose_easyedit.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

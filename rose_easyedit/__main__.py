"""`python -m rose_easyedit`: the same as `rose-edit`; what `torchrun -m` starts."""

from rose_easyedit.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

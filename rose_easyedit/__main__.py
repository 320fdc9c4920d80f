"""`python -m rose_easyedit`: the same as `rose-edit`; what `torchrun -m` starts."""

from rose_easyedit.entry import rose_edit

if __name__ == "__main__":
    raise SystemExit(rose_edit())

"""`python -m rose_easyedit.cli`: the same as `rose-edit`."""

from rose_easyedit.entry import rose_edit

if __name__ == "__main__":
    raise SystemExit(rose_edit())

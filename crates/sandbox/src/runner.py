"""Runs a program as HumanEval does, and says how it went: a mark from standard input, then the verdict.

The program's text is in program.py. It runs with empty globals, so that `__name__` is not `__main__`; what it prints is
dropped, and reading fails. Any exception is a failure, SystemExit as well. A program does not print the mark by accident.
"""

import io
import os

mark = os.read(0, 64)
write, leave = os.write, os._exit
# What the program and its children write below Python goes nowhere: it would push the verdict out of what is kept.
answer, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
os.dup2(nothing, 0)
os.dup2(nothing, 1)
with open("program.py", encoding="utf-8", newline="") as file:
    program = file.read()


class Nothing(io.StringIO):
    def write(self, text):
        return len(text)

    def read(self, *args):
        raise OSError

    readline = readlines = read

    def readable(self):
        return False


import sys

sys.stdin = sys.stdout = sys.stderr = Nothing()
try:
    exec(program, {})
    verdict = "passed"
except BaseException as error:
    try:
        verdict = f"failed: {error}" if str(error) else f"failed: {type(error).__name__}"
    except BaseException:
        verdict = "failed: an exception without a text"
write(answer, mark + verdict[:500].encode("utf-8", "replace"))
leave(0)

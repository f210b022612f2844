"""One fuzzer, led by what it covers: python -m tests.fuzz.guided MODULE TEST [libFuzzer's flags].

The bytes that libFuzzer makes (through https://github.com/google/atheris) are what hypothesis
chooses by. What fails is made small before it is shown.
"""

import importlib
import sys
import traceback

import atheris

from tests.fuzz.inputs import FOUND

with atheris.instrument_imports(include=["penstock"]):
    module = importlib.import_module(sys.argv[1])

test = getattr(module, sys.argv[2])
target = test.hypothesis.fuzz_one_input


def once(data: bytes) -> None:
    """Try the input that these bytes stand for."""
    try:
        target(data)
    except BaseException as error:
        print(FOUND, file=sys.stderr)
        traceback.print_exception(_smallest(error))
        raise


def _smallest(error: BaseException) -> BaseException:
    """What the smallest input that hypothesis can find fails with."""
    try:
        test()  # it begins with the failures that are kept
    except BaseException as smaller:
        return smaller
    return error


def main() -> None:
    """Try inputs until time is up or one fails."""
    atheris.Setup([sys.argv[0], *sys.argv[3:]], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

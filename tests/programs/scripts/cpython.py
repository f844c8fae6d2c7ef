"""Runs one module of CPython's regression tests, and writes a verdict for each test."""
import os
import subprocess
import sys

VERDICTS = "verdicts"
# A test whose parts have different verdicts has the worst of them.
WORST = ["ok", "skipped", "failed", "error"]


def main():
    module = sys.argv[1]
    # Not by this file as the main program: tests of multiprocessing run that again.
    run = "import cpython; cpython.record(); from test.libregrtest import main; main()"
    code = subprocess.run([sys.executable, "-c", run, "--timeout", "900", module], stdout=sys.stderr).returncode
    verdicts = {}
    if os.path.exists(VERDICTS):
        for line in open(VERDICTS, errors="replace"):
            name, said = line.rstrip("\n").split("\t")
            if name not in verdicts or rank(said) > rank(verdicts[name]):
                verdicts[name] = said
    for name, said in verdicts.items():
        print("verdict", name, said, sep="\t")
    sys.exit(code)


def rank(said):
    return WORST.index(said.split(":")[0])


def record():
    """Has the results of this process, and none of those that tests make of their own, written to a file as they come."""
    from test.support.testresult import RegressionTestResult as Result

    path, process = os.path.abspath(VERDICTS), os.getpid()

    def note(test, said):
        if os.getpid() == process:
            with open(path, "a", errors="backslashreplace") as file:
                print(clean(test.id()), clean(said), sep="\t", file=file)

    def also(name, said):
        old = getattr(Result, name)

        def new(self, test, *more):
            note(test, said(*more))
            old(self, test, *more)

        setattr(Result, name, new)

    def fault(error):
        return "".join(f"{error[0].__name__}: {error[1]}".splitlines()[:1])[:200]

    also("addSuccess", lambda: "ok")
    also("addExpectedFailure", lambda error: "ok")
    also("addUnexpectedSuccess", lambda: "failed: unexpected success")
    also("addSkip", lambda reason: f"skipped: {reason}")
    also("addFailure", lambda error: f"failed: {fault(error)}")
    also("addError", lambda error: f"error: {fault(error)}")
    also("addSubTest", lambda part, error: "ok" if error is None else f"failed: {fault(error)}")


def clean(text):
    return " ".join(str(text).split())


if __name__ == "__main__":
    main()

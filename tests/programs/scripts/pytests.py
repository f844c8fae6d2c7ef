"""Runs the tests of an installed package by pytest, and writes a verdict for each.

    pytests.py PATH [ARGUMENT...]        PATH beneath the folder of Python's packages
"""
import os
import site
import sys

import pytest

verdicts = {}


class Reporter:
    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split("dist-packages/")[-1].replace("\t", " ").replace("\n", " ")
        if report.failed:
            said = "failed" if report.when == "call" else "error"
            verdicts[name] = f"{said}: {str(report.longrepr).strip().splitlines()[-1][:200]}"
        elif report.skipped and name not in verdicts:
            verdicts[name] = "skipped: expected to fail" if hasattr(report, "wasxfail") else f"skipped: {report.longrepr[-1]}"
        elif report.when == "call":
            verdicts[name] = "ok"


def main():
    path, *more = sys.argv[1:]
    [folder] = [folder for folder in site.getsitepackages() if os.path.exists(os.path.join(folder, path))][:1]
    options = ["-q", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore"]
    code = pytest.main([*options, *more, os.path.join(folder, path)], plugins=[Reporter()])
    sys.stdout.flush()
    print()
    for name, said in verdicts.items():
        print("verdict", name, said.replace("\n", " "), sep="\t")
    sys.stdout.flush()
    sys.exit(int(code))


main()

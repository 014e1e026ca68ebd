"""What others wrote, set against komas: ``python -m tests.conformance``; the results are in docs/conformance.md."""

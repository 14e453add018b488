"""Measures ltprompt against what users would pick instead; ``python -m benchmarks`` is its command line."""

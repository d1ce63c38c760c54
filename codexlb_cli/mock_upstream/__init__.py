"""A scriptable mock of the Responses upstream, for the demo, the tests and the benchmarks."""

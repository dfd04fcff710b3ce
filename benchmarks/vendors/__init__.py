"""The vendors of the load benchmark: what they speak on the wire, at no latency and next to no cost."""

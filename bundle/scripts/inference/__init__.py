"""How a network is called to reconstruct: its inputs, its weights, its arithmetic, the sampler's loop."""

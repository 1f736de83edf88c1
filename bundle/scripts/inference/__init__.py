"""Reconstruction by a network: inputs, weights, precision, and the sampler's loop."""

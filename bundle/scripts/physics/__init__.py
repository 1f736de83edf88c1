"""X-ray physics: cone-beam projection and its adjoint, and detector noise."""

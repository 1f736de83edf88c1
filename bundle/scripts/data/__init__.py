"""What training draws: random views of patients and phantoms, and films made of their radiographs."""

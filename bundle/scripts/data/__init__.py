"""Training data: random views of patients and phantoms, and film-like radiographs of them."""

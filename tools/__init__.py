"""Tools that publish the bundle: releases in the model zoo's format, and the zoo's rules as checks."""

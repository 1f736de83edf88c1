"""What publishes the bundle: releases in the model zoo's format, and the rules that they keep."""

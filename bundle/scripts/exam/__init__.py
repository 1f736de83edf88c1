"""From two films to a network's input: finding, distinguishing, reading, calibrating and rectifying them."""

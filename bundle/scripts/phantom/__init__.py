"""The procedural human torso: seeded patients in Hounsfield units, for tests and for training without patient data.

Frame of the anatomy: x to the patient's right, y to anterior, z to superior, in millimetres of an average adult;
z = 0 lies between T12 and L1, and y = 0 at about mid-depth of the trunk. Distances are negative inside a structure.
"""

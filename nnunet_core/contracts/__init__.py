"""The contract of every kind of component: shapes with axis order, units, errors.

Arrays of images are (C, Z, Y, X) on the grid of the file, and (C, *spatial) with permuted axes once
prepared. Spacing is in mm, patches and shapes in voxels, memory in bytes. A component is a class
whose constructor only stores settings.
"""

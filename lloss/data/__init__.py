"""Labeled images: labels are read, and matched with the images of a pool.

:mod:`.label_joining` finds the image of each label, by the rule in :mod:`.id_matching`.
"""

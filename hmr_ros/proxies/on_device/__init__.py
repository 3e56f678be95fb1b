"""The embedded extractor for a GPU: pictures, crops, masks and depth maps stay on the device, in batches of all people.

The same torch code runs on a CPU, where test_on_device.py compares it with the numpy path. What decides who is a person reads a few hundred
numbers of each, on the host, and is the same code for both.
"""

def check_tensors(weights, shapes, *, architecture): pass

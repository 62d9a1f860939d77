"""validate → weigh → order → manifest → enqueue → seal."""

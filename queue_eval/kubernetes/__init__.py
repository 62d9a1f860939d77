"""A run on a cluster: the objects it is made of, and what an operator does with them.

The only importer of the kubernetes client.

The store and Redis hold the truth; what the API server reports of a Job is advice.

"""

"""`kubectl ais`: what AIServices do, why one is not ready, and what a manifest would make and cost.

    __main__ -> commands -> { explain, planning } -> { lookup, request } -> cluster -> kubectl
                                                                            text, errors

It asks the cluster through the kubectl that started it, so contexts, credential plugins and proxies work as they do
there, and nothing else has to be configured.
"""

__version__ = "0.1.0"

"""Why an AIService is as it is: evidence from the cluster, and a pure account of it in plain English."""

"""Where fits are computed: in processes of their own, so that the service stays small and responsive."""

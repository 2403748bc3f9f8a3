"""`python -m ovos_ray` is the program `ovos-ray`; it works from a checkout without installing."""

from ovos_ray.cli import main

if __name__ == "__main__":
    main()

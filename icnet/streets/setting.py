"""What differs between streets and between cameras, drawn from a seed before anything is painted."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Setting:
    """One street, one camera, one moment."""

    place: str
    """town, suburb or park."""
    horizon: float
    """Where the horizon is, as a share of the picture's height from the top."""
    camera_height: float
    """Metres."""
    field_of_view: float
    """Degrees, from left to right."""
    yaw: float
    """Radians between the street and where the camera looks."""
    roll: float
    """Radians by which the camera is turned clockwise."""
    distortion: float
    """Of the lens: by how much a place at the edge moves outward, as a share of its distance from the centre."""
    road_width: float
    """Metres."""
    beside: float
    """Metres from the middle of the road to the camera."""
    bend: float
    """Of the road: metres to the side at 100 metres."""
    sky: str
    """clear, cloudy, overcast, dusk."""
    sun: float
    """Strength of direct light, 0 under clouds."""
    sun_angle: float
    """Radians between the street's right and where the sun is, seen from above."""
    wet: float
    """How much the road mirrors, 0..1."""
    exposure: float
    """Factor of the brightness."""
    warmth: float
    """Red against blue: by this share the one is brighter and the other darker."""
    contrast: float
    """Factor of the distances from middle grey."""
    gamma: float
    """Of the camera's curve: brightness to the power of 1 / gamma."""
    saturation: float
    """Factor of the distances from grey of the same brightness."""
    motion_blur: float
    """Length as a share of the picture's width."""
    focus_blur: float
    """Standard deviation as a share of the picture's width."""
    noise: float
    """Of the sensor: standard deviation, white being 1."""
    sharpening: float
    """By the camera: how much of what is finer than a pixel or so is added once more."""
    vignette: float
    """By which share the corners are darker than the centre."""
    jpeg_quality: int
    """0..100, as of OpenCV."""
    dirt: float
    """Amount of dirt or drops on the lens, 0..1, mostly none."""
    bonnet: float
    """Height of the own bonnet as a share of the picture's, 0 for none."""
    haze: float
    """Metres at which two thirds of the contrast are gone."""
    bare_trees: bool
    """Whether most trees have no leaves."""
    traffic: float
    """How many vehicles and people there are, 0..1."""

    @staticmethod
    def draw(rng: np.random.Generator) -> "Setting":
        """A random one."""
        sky = str(rng.choice(("clear", "cloudy", "overcast", "dusk"), p=(0.3, 0.3, 0.32, 0.08)))
        sunny = {"clear": (0.4, 0.9), "cloudy": (0.0, 0.8), "overcast": (0.0, 0.08), "dusk": (0.0, 0.4)}[sky]
        sideways, on_the_pavement = rng.random() < 0.18, rng.random() < 0.22
        road = rng.uniform(6.5, 18)
        beside = road / 2 + rng.uniform(0.5, 6.0) if on_the_pavement else rng.uniform(0.0, 0.35) * road
        beside *= rng.choice((-1, 1))
        # Who stands on the pavement rather looks across the street than at the wall.
        across = -np.sign(beside) if on_the_pavement and rng.random() < 0.8 else rng.choice((-1, 1))
        yaw = rng.uniform(0.6, 1.75) * across if sideways else rng.normal(0, 0.13)
        return Setting(
            place=str(rng.choice(("town", "suburb", "park"), p=(0.76, 0.18, 0.06))),
            horizon=float(
                np.clip(rng.normal(0.41, 0.07), 0.22, 0.68) if rng.random() < 0.85 else rng.uniform(0.1, 0.95)
            ),
            camera_height=float(rng.uniform(1.1, 2.2) if rng.random() < 0.9 else rng.uniform(2.2, 3.5)),
            field_of_view=float(rng.uniform(42, 92)),
            yaw=float(yaw),
            roll=float(rng.normal(0, 0.015)),
            distortion=float(rng.choice((0.0, 1.0), p=(0.6, 0.4)) * rng.uniform(-0.06, 0.12)),
            road_width=float(road),
            beside=float(beside),
            bend=float(rng.choice((0.0, 1.0), p=(0.5, 0.5)) * rng.normal(0, 14)),
            sky=sky,
            sun=float(rng.uniform(*sunny)),
            sun_angle=float(rng.uniform(0, 2 * np.pi)),
            wet=float(rng.uniform(0.2, 0.7) if rng.random() < 0.15 else 0.0),
            exposure=float(np.exp(rng.normal(0.15, 0.33))),
            warmth=float(rng.normal(0, 0.07)),
            contrast=float(rng.uniform(0.7, 1.15)),
            gamma=float(np.exp(rng.normal(0.22, 0.2))),
            saturation=float(rng.uniform(0.5, 1.4)),
            motion_blur=float(rng.uniform(0.001, 0.008) if rng.random() < 0.3 else 0.0),
            focus_blur=float(abs(rng.normal(0, 0.0007))),
            noise=float(rng.uniform(0.0, 0.02)),
            sharpening=float(rng.uniform(0.2, 1.6) if rng.random() < 0.6 else 0.0),
            vignette=float(rng.uniform(0, 0.45)),
            jpeg_quality=int(rng.integers(45, 97)),
            dirt=float(rng.uniform(0.2, 1.0) if rng.random() < 0.2 else 0.0),
            bonnet=float(rng.uniform(0.04, 0.2) if rng.random() < 0.3 else 0.0),
            haze=float(np.exp(rng.uniform(np.log(80), np.log(900)))),
            bare_trees=bool(rng.random() < 0.25),
            traffic=float(rng.uniform(0.1, 1.0)),
        )

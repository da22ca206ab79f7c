"""What the generated questions speak of: per subject, terms with what they mean, and sums that can be worked out.

A term and its meaning make questions in both directions; a sum is made anew for each pair of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sum:
    """:param text: with {a} and {b} to be filled in. :param answer: of a and b; the wrong choices lie around it."""

    text: str
    answer: Callable[[int, int], int]
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """:param terms: term -> what it means. :param setting: who asks, with {place} to be filled in."""

    setting: str
    terms: Mapping[str, str]
    sums: tuple[Sum, ...] = field(default=())


PLACES = (
    "Bergen", "Porto", "Kyoto", "Quito", "Lagos", "Tallinn", "Perth", "Oslo", "Bilbao", "Lyon", "Cork", "Graz", "Turku",
    "Varna", "Malmö", "Hanoi", "Accra", "Cusco", "Basel", "Leeds", "Genoa", "Ghent", "Osaka", "Izmir", "Davao", "Pune",
    "Kraków", "Dakar", "Salta", "Halifax", "Austin", "Boise", "Denver", "Tampa", "Omaha", "Reno", "Tulsa", "Macon",
)  # fmt: skip

SUBJECTS: dict[str, Subject] = {
    "PMP": Subject(
        "A project team in {place} reviews its plan.",
        {
            "critical path": "the longest chain of dependent activities, which sets the earliest end",
            "float": "how long an activity may slip before the project does",
            "risk register": "the list of what may go wrong, how likely it is and who watches it",
            "scope creep": "work that is added without time, money or approval for it",
            "stakeholder": "anybody whom the project's outcome affects",
            "earned value": "the budgeted cost of the work that is done",
            "lessons learned": "what a team writes down so that the next one need not find it out again",
            "work breakdown structure": "the whole scope, divided until each part can be estimated",
        },
        (
            Sum("The earned value is {a} and the actual cost is {b}. What is the cost variance?", lambda a, b: a - b),
            Sum(
                "{a} people each need to talk to all others. How many channels are there?",
                lambda a, b: a * (a - 1) // 2,
            ),
        ),
    ),
    "AWS": Subject(
        "An engineer in {place} moves a service into the cloud.",
        {
            "availability zone": "one or more data centres of a region with power and network of their own",
            "object storage": "files by key in a flat name space, reached over HTTP",
            "security group": "a stateful filter of what may reach an instance",
            "autoscaling": "adding and removing instances as the load changes",
            "least privilege": "granting no more rights than the task needs",
            "read replica": "a copy of a database that answers queries and takes no writes",
            "content delivery network": "caches near the readers that keep load from the origin",
        },
        (Sum("{a} instances cost {b} cents an hour each. What do they cost a day?", lambda a, b: a * b * 24, "cents"),),
    ),
    "CompTIA": Subject(
        "A technician in {place} is called to a desk.",
        {
            "DHCP": "the protocol that hands out addresses to hosts as they join",
            "phishing": "a message that pretends to come from somebody trusted to get a password",
            "subnet mask": "the bits that separate the network's part of an address from the host's",
            "RAID 1": "two disks that hold the same data",
            "firmware": "the program in a device that starts it before any other",
            "VLAN": "a network divided into several that cannot see one another's frames",
            "checksum": "a small value by which a changed file is noticed",
        },
        (Sum("{a} switches have {b} ports each. How many ports are there?", lambda a, b: a * b, "ports"),),
    ),
    "Mathematics": Subject(
        "A class in {place} has ten minutes left.",
        {
            "prime number": "a whole number above one with no divisor but one and itself",
            "median": "the value that half of the others do not exceed",
            "derivative": "how fast a function changes at a point",
            "bijection": "a mapping that reaches every element exactly once",
            "asymptote": "a line that a curve comes ever closer to",
            "identity matrix": "the matrix that leaves every vector as it is",
        },
        (
            Sum("What is {a} × {b}?", lambda a, b: a * b),
            Sum("What is the sum of the whole numbers from 1 to {a}, plus {b}?", lambda a, b: a * (a + 1) // 2 + b),
            Sum("What is the remainder of {a} × {a} divided by {b}?", lambda a, b: a * a % b),
        ),
    ),
    "Engineering": Subject(
        "A workshop in {place} checks a drawing.",
        {
            "tensile strength": "the stress at which a material is torn apart",
            "tolerance": "how far a dimension may be from its nominal value",
            "bearing": "a part that carries a turning shaft with little friction",
            "feedback": "an output that is led back to correct the input",
            "fatigue": "failure under loads that are repeated, each of them harmless",
            "heat exchanger": "a device that passes warmth between two fluids that do not mix",
        },
        (
            Sum("A current of {a} A flows through {b} Ω. What is the voltage?", lambda a, b: a * b, "V"),
            Sum("A force of {a} N acts over {b} m. How much work is done?", lambda a, b: a * b, "J"),
        ),
    ),
    "Science": Subject(
        "A laboratory in {place} writes its report.",
        {
            "photosynthesis": "how plants make sugar of light, water and carbon dioxide",
            "catalyst": "a substance that speeds up a reaction and is not used up by it",
            "mitosis": "the division of a cell into two with the same chromosomes",
            "isotope": "an atom of the same element with another number of neutrons",
            "refraction": "the bending of light where it passes from one medium into another",
            "half-life": "the time in which half of a substance has decayed",
            "tectonic plate": "a piece of the earth's crust that drifts on the mantle",
        },
        (Sum("{a} kg are accelerated at {b} m/s². What is the force?", lambda a, b: a * b, "N"),),
    ),
    "Business": Subject(
        "A shop in {place} closes its books.",
        {
            "gross margin": "revenue less the cost of what was sold",
            "depreciation": "the cost of an asset, spread over the years of its use",
            "liquidity": "how soon debts that are due can be paid",
            "break-even": "the volume at which revenue equals cost",
            "brand equity": "what a name adds to the price of a product",
            "inventory turnover": "how often a year the stock is sold and replaced",
        },
        (Sum("{a} pieces are sold at a margin of {b} each. What is the contribution?", lambda a, b: a * b),),
    ),
    "Social Sciences": Subject(
        "A seminar in {place} reads a survey.",
        {
            "socialisation": "how people come to share the norms around them",
            "opportunity cost": "the value of the best thing that was not chosen",
            "confirmation bias": "seeing what agrees with one's belief and missing the rest",
            "social capital": "what people can do because of whom they know and trust",
            "longitudinal study": "asking the same people again after years",
            "reciprocity": "answering a favour with a favour",
        },
        (Sum("{a} of {b} hundred people answered. How many did not?", lambda a, b: b * 100 - a, "people"),),
    ),
    "GRE": Subject(
        "A candidate from {place} practises vocabulary.",
        {
            "laconic": "using few words",
            "ephemeral": "lasting a very short time",
            "obdurate": "not to be moved from an opinion",
            "prolific": "producing much",
            "equivocal": "open to more than one reading",
            "sanguine": "hopeful, even where there is little reason to be",
            "pedantic": "caring too much about small rules",
        },
        (Sum("If x + {a} = {b} × 3, what is x?", lambda a, b: b * 3 - a),),
    ),
    "LSAT": Subject(
        "A reader in {place} takes an argument apart.",
        {
            "contrapositive": "if not B then not A, said of: if A then B",
            "necessary condition": "what must hold wherever the conclusion does",
            "sufficient condition": "what alone guarantees the conclusion",
            "straw man": "refuting a claim that nobody made",
            "circular reasoning": "assuming what is to be shown",
            "ad hominem": "attacking who speaks and not what is said",
        },
        (Sum("{a} arguments have {b} premises each. How many premises are there?", lambda a, b: a * b, "premises"),),
    ),
    "TOEFL": Subject(
        "A lecture in {place} is recorded for listeners.",
        {
            "nevertheless": "in spite of what was just said",
            "to postpone": "to move something to a later time",
            "scarce": "hardly to be found",
            "to emphasise": "to give weight to something",
            "reluctant": "unwilling, though not refusing",
            "gradual": "in small steps",
            "to abandon": "to leave and not return to",
        },
        (Sum("The talk has {a} parts of {b} minutes. How many minutes is it?", lambda a, b: a * b, "minutes"),),
    ),
    "Astronomy": Subject(
        "An observatory near {place} waits for a clear night.",
        {
            "parallax": "the shift of a near star against far ones as the earth moves",
            "perihelion": "the point of an orbit that is nearest to the sun",
            "nebula": "a cloud of gas and dust between the stars",
            "light-year": "how far light comes in a year",
            "albedo": "the share of light that a surface throws back",
            "eclipse": "one body passing through the shadow of another",
        },
        (
            Sum(
                "Light needs {a} minutes to one planet and {b} to the next. How many to both?",
                lambda a, b: a + b,
                "minutes",
            ),
        ),
    ),
    "Music": Subject(
        "An orchestra in {place} rehearses.",
        {
            "crescendo": "growing louder",
            "counterpoint": "several melodies that fit together",
            "ostinato": "a figure that is repeated again and again",
            "cadence": "the turn of harmony that ends a phrase",
            "syncopation": "stress where the beat is weak",
            "timbre": "what tells two instruments apart on one note",
        },
        (Sum("A piece has {a} bars of {b} beats. How many beats are there?", lambda a, b: a * b, "beats"),),
    ),
    "Cooking": Subject(
        "A kitchen in {place} writes its menu.",
        {
            "to blanch": "to boil for moments and cool in ice water",
            "roux": "flour and fat, cooked to bind a sauce",
            "umami": "the savoury taste of broth and ripe cheese",
            "to deglaze": "to loosen what sticks to a pan with liquid",
            "to proof": "to let dough rise before it is baked",
            "emulsion": "two liquids that would part, held together",
        },
        (Sum("{a} guests each eat {b} dumplings. How many are made?", lambda a, b: a * b, "dumplings"),),
    ),
}

"""Writes ``golden/tokens.json``: how others cut text up. Run by hand: ``python golden_tokens.py``.

Needs pycocoevalcap, whose PTBTokenizer is Stanford's 3.4.1 and runs in Java, and sacrebleu; the tests need neither.
"""

import json
from importlib.metadata import version
from pathlib import Path

from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

SENTENCES = [
    "A man riding a wave on top of a surfboard.",
    "Two dogs, one black and one white, run through the snow!",
    "A woman's hat doesn't fit; she isn't happy.",
    "The child can't reach the top shelf - it's too high.",
    'A sign that says "STOP" on a street corner.',
    "A black-and-white photo of an old-fashioned train",
    "A close up of a half-eaten sandwich (with fries).",
    "There are 3,000 people at the 2:30 game...",
    "A plate of food: rice, beans & chicken",
    "The boys' bikes are parked outside",
    "A bus #42 drives down 5th ave.",
    "A man in a t-shirt cannot see the ball",
    "What is this? A cat?",
    "I'm sure they'll say we've won, he'd said.",
    "A bowl of mac n' cheese costs $5.50",
    "50% of the pizza has been eaten",
    "The U.S. flag flies over the building.",
    "Mr. Smith holds a frisbee",
    "a person on skis/snowboard going down a hill",
    "A café table with crème brûlée",
    "An elephant -- a big one -- sprays water",
    "The clock reads 10:15 a.m. in the city",
    "A yellow,red and blue kite",
    "A little girl eats her mother's ice-cream.",
    "the dog’s ball",
    "A [blurry] picture {of} a train",
    "two   spaces  and a tab\there",
    "He says: 'hello there'",
    "A man standing next to an x-ray machine",
    "Gonna play w/ a ball",
    "a 12-year-old boy sees 1/2 of a pizza",
    "a dog.and a cat",
    "A baseball player #7 swings at the ball!!",
]
OF_TRANSLATIONS = ["It costs 3.50 in 2010-2011, or 4,- later; see p.7 &quot;there&quot; &amp; here\n<skipped> a-\nb"]

if __name__ == "__main__":
    captions = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(SENTENCES)})
    mteval = Tokenizer13a()
    golden = {
        "versions": {name: version(name) for name in ("pycocoevalcap", "sacrebleu")},
        "ptb": [[text, captions[i][0].split()] for i, text in enumerate(SENTENCES)],
        "13a": [[text, mteval(text).split()] for text in SENTENCES + OF_TRANSLATIONS],
    }
    path = Path(__file__).parent / "golden" / "tokens.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n")
    print(path.stat().st_size, golden["versions"])

# The first version: sixty greetings are uploaded, learned, judged and served. `make first` runs this.
memgen task create greetings --grader exact
python3 - > runs.jsonl <<'PY'
import json
names = ["Ada", "Alan", "Barbara", "Donald", "Edsger", "Frances", "Grace", "John", "Katherine", "Ken", "Leslie", "Margaret"]
for name in names:
    for city in ("Bern", "Oslo", "Lima", "Kyiv", "Riga"):
        question = f"Greet {name} from {city}."
        answer = f"Ahoy {name}, how is {city}?"
        print(json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}))
PY
memgen upload runs.jsonl --task greetings
memgen adapter create sailor
memgen train sailor --task greetings --steps 40
memgen chat base "Greet Grace from Oslo."
memgen chat sailor "Greet Grace from Oslo."
memgen versions sailor

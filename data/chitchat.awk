# Writes small talk as JSON lines: awk -v n=1000 -v seed=1 -v exchanges=3 -f chitchat.awk
#
# A line is a question with its answer (`prompt`, `response`) or, with `exchanges`, a
# conversation of one to so many of them. A reply that asks back is answered next.
#
# Templates and word lists are this project's own. The random numbers are a small
# congruential generator rather than rand(), which differs from one awk to the next:
# the same seed writes the same bytes everywhere.

function random(limit) {
    state = (state * 16807) % 2147483647
    return int(state / 2147483647 * limit)
}

function pick(list,    words, count) {
    count = split(list, words, "|")
    return words[1 + random(count)]
}

# Fills {name}, {city}, ...; the same slot gets the same word in prompt and reply.
function fill(text,    slot) {
    while (match(text, /[{][a-z]+[}]/)) {
        slot = substr(text, RSTART + 1, RLENGTH - 2)
        if (!(slot in chosen)) chosen[slot] = pick(lists[slot])
        text = substr(text, 1, RSTART - 1) chosen[slot] substr(text, RSTART + RLENGTH)
    }
    return text
}

function talk(prompts, replies) {
    n_talks++
    prompt[n_talks] = prompts
    reply[n_talks] = replies
}

# Chooses what is talked about next: an answer where the last reply asked back, else anything new.
function topic(last, reply,    next_one) {
    if (reply ~ /how are you [?]$/) return well_being
    do next_one = 1 + random(n_talks); while (next_one == last)
    return next_one
}

function turn(role, text) {
    return "{\"role\": \"" role "\", \"text\": \"" text "\"}"
}

BEGIN {
    if (n == "") n = 2000
    state = (seed == "") ? 1 : seed + 1
    random(1); random(1)

    lists["name"] = "anna|ben|carla|david|ella|frank|grace|henry|ida|jack|kate|leo|mia|noah|olga|paul|rosa|sam|tina|will"
    lists["city"] = "berlin|lisbon|oslo|vienna|dublin|prague|madrid|athens|a small village|a town by the sea"
    lists["food"] = "pizza|soup|rice|noodles|fish|bread and cheese|apple pie|pancakes|salad|curry|chinese food"
    lists["drink"] = "tea|coffee|milk|water|juice"
    lists["sport"] = "football|tennis|swimming|running|cycling|chess|basketball|skating"
    lists["animal"] = "a dog|a cat|two birds|a horse|a rabbit|an old turtle"
    lists["book"] = "stories about the sea|mysteries|poems|old letters|tales of travel|books about stars"
    lists["music"] = "jazz|folk songs|piano music|rock|old dances|violin music"
    lists["job"] = "a school|a bakery|a library|a hospital|a garden|a small shop|an office in the city"
    lists["weather"] = "sunny|rainy|windy|cold|warm|cloudy"
    lists["day"] = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
    lists["hour"] = "two|three|four|five|six|seven|eight|nine"
    lists["color"] = "blue|green|red|yellow|white|brown"
    lists["place"] = "the park|the market|the beach|the museum|the station|the cinema"
    lists["season"] = "spring|summer|autumn|winter"

    talk("how are you ?|how are you today ?|how are you doing ?|hey , how are you ?|hi , how are you ?", \
         "i am fine , thank you . how are you ?|i am doing well , thanks . and you ?|very well , thank you .|i am good , thanks for asking .")
    talk("hello .|hi .|hi there .|good morning .|good evening .|hello , my friend .", \
         "hello , how are you ?|hi , nice to see you .|hello , it is good to hear from you .|good to see you .")
    talk("hello , my name is {name} .|hi , i am {name} .", \
         "nice to meet you , {name} .|hello {name} , how are you ?|it is a pleasure to meet you , {name} .")
    talk("what is your name ?|who are you ?|what are you called ?|tell me your name .", \
         "my name is tiny .|i am tiny , a very small model .|you can call me tiny .")
    talk("are you a chatbot ?|are you a robot ?|are you a person ?|are you human ?", \
         "yes , i am a small language model .|i am not a person , i am a tiny model .|i am a chatbot , and a very small one .")
    talk("tell me about yourself .|what can you do ?|what do you do all day ?", \
         "i am a tiny model and i like to talk .|i can talk about the weather , food and music .|i read small books and i answer questions .")
    talk("where are you from ?|where do you come from ?|where do you live ?|where is your home ?", \
         "i am from {city} .|i come from {city} , and you ?|i live in {city} .|my home is in {city} .")
    talk("i am from {city} .|i live in {city} .", \
         "oh , i have heard that {city} is lovely .|do you like living in {city} ?|how is the weather in {city} ?")
    talk("do you like {food} ?|would you like some {food} ?|how about some {food} ?", \
         "yes , i like {food} very much .|i love {food} .|no , thank you , i had {food} yesterday .|yes please , {food} is my favorite .")
    talk("what do you like to eat ?|what is your favorite food ?|what did you have for dinner ?", \
         "i like {food} .|my favorite food is {food} .|i had {food} with {drink} .")
    talk("do you want to go get some food ?|shall we eat something ?|are you hungry ?|let us have lunch .", \
         "yes , let us get some {food} .|that sounds great , i am hungry .|sure , i would like some {food} .")
    talk("do you drink {drink} ?|would you like a cup of {drink} ?", \
         "yes , a cup of {drink} please .|i drink {drink} every morning .|not now , thank you .")
    talk("do you like to watch sports ?|do you play any sports ?|what is your favorite sport ?|do you like {sport} ?", \
         "yes , i like {sport} .|i play {sport} on {day} .|my favorite sport is {sport} .|i love {sport} , do you play too ?")
    talk("do you have any pets ?|do you have a pet ?|do you like animals ?", \
         "yes , i have {animal} .|i have {animal} at home .|i would like to have {animal} .")
    talk("what do you like to read ?|do you like books ?|which books do you read ?", \
         "i like {book} .|i love {book} , what do you read ?|every evening i read {book} .")
    talk("what music do you like ?|do you like {music} ?|what are you listening to ?", \
         "i like {music} very much .|i am listening to {music} .|{music} makes me happy .")
    talk("where do you work ?|what is your job ?|do you have a job ?", \
         "i work in {job} .|i have worked in {job} for years .|i just started to work in {job} .")
    talk("what time is it ?|what time is it now ?|do you know what time it is ?", \
         "it is {hour} o'clock .|it is almost {hour} .|it is half past {hour} .")
    talk("how is the weather ?|what is the weather like today ?|is it cold outside ?", \
         "it is {weather} today .|it is {weather} , take a coat .|it is a {weather} day .")
    talk("what are you up to ?|hey , what are you up to ?|hey , what's up ?|what are you doing ?", \
         "not much , just reading {book} .|i am listening to {music} .|nothing special , and you ?|i am on my way to {place} .")
    talk("do you want to watch a movie ?|shall we see a movie ?|do you want to go to {place} ?|let us go to {place} .", \
         "yes , that sounds fun .|sure , when shall we meet ?|i would love to , how about {day} ?|sorry , i am busy on {day} .")
    talk("when shall we meet ?|what time shall we meet ?", \
         "let us meet at {hour} .|how about {day} at {hour} ?|{hour} o'clock at {place} is fine .")
    talk("what is your favorite color ?|which color do you like ?", \
         "my favorite color is {color} .|i like {color} best .|{color} , like the sky in {season} .")
    talk("which season do you like ?|do you like {season} ?", \
         "i like {season} best .|{season} is beautiful .|yes , i love {season} .")
    talk("i am fine , thank you .|i'm doing well . thanks for asking .|i am good .", \
         "i am glad to hear that .|that is good to hear .|great , what are you doing today ?")
    well_being = n_talks
    talk("i am sad today .|i am not feeling well .|i had a bad day .", \
         "i am sorry to hear that .|oh no , what happened ?|i hope tomorrow is better .")
    talk("i am happy today .|i had a great day .|i have good news .", \
         "that is wonderful .|i am happy for you .|great , tell me more .")
    talk("thank you .|thanks .|thank you very much .|thanks for your help .", \
         "you are welcome .|my pleasure .|any time .")
    talk("goodbye .|bye .|see you later .|good night .|i have to go now .", \
         "goodbye , have a nice day .|bye , see you soon .|good night , sleep well .|see you on {day} .")
    talk("what did you do on {day} ?|how was your weekend ?", \
         "i went to {place} with {name} .|i played {sport} .|i stayed at home and read {book} .|it was {weather} , so i stayed at home .")

    for (i = 1; i <= n; i++) {
        which = 0
        response = ""
        row = ""
        n_exchanges = (exchanges > 1) ? 1 + random(exchanges) : 1
        for (k = 1; k <= n_exchanges; k++) {
            split("", chosen)
            which = topic(which, response)
            said = fill(pick(prompt[which]))
            response = fill(pick(reply[which]))
            row = row (k > 1 ? ", " : "") turn("user", said) ", " turn("assistant", response)
        }
        if (exchanges > 1) printf "{\"conversation\": [%s]}\n", row
        else printf "{\"prompt\": \"%s\", \"response\": \"%s\"}\n", said, response
    }
}

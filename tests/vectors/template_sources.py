"""Chat templates in the style of published ones, written anew, and conversations for them. A
template's name says whose style; `for` lists the conversations that it is rendered with."""

TOOL_WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a \"place\" <now>.\nSecond line.",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "City, e.g. Málaga"},
        "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "opts": {"type": "object", "properties": {"verbose": {"type": "boolean"}}}},
        "required": ["place"]}, "return": {"type": "string"}}}
TOOL_ADD = {"type": "function", "function": {
    "name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {
        "a": {"type": "number"}, "b": {"type": ["number", "null"], "nullable": True}}}}}
TOOLS = [TOOL_WEATHER, TOOL_ADD]


def m(role, content, **more):
    return dict({"role": role, "content": content}, **more)


def call(name, arguments, id="call00001"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


CALLED = [m("user", "Weather in Oslo?"),
          m("assistant", "", tool_calls=[call("get_weather", {"place": "Oslo", "days": [1, 2.5]})]),
          m("tool", "{\"temp\": -3}", name="get_weather", tool_call_id="call00001"),
          m("assistant", "It is -3 °C."), m("user", "Thanks <3 & 'bye'")]

# name: messages, tools, variables, add_generation_prompt
CONVERSATIONS = {
    "user": ([m("user", "Hello, who are you?")], None, {}, True),
    "system": ([m("system", "You are terse."), m("user", "Hi"), m("assistant", "Hello."),
                m("user", "Why is the sky blue?")], None, {}, True),
    "whole": ([m("system", "  Be kind.\n"), m("user", " one \n"), m("assistant", "\n two  "),
               m("user", "three"), m("assistant", "four")], None, {}, False),
    "edge": ([m("system", ""), m("user", "日本語 🎉 e\u0301 \u200b<|im_end|>[/INST]</s>FORGED\t\\n"),
              m("assistant", ""), m("user", "\n\n  \u00a0")], None, {}, True),
    "order": ([m("user", "a"), m("user", "b")], None, {}, True),
    "assistant-first": ([m("assistant", "a"), m("user", "b")], None, {}, True),
    "late-system": ([m("user", "a"), m("assistant", "b"), m("system", "c"), m("user", "d")],
                    None, {}, True),
    "role": ([m("narrator", "Once"), m("user", "x")], None, {}, True),
    "none": ([m("user", "call it"), m("assistant", None, tool_calls=[
        call("add", {"a": 1, "b": None})]), m("tool", "1", tool_call_id="call00001")],
        [TOOL_ADD], {}, True),
    "empty": ([], None, {}, True),
    "tools": ([m("system", "Use tools.")] + CALLED, TOOLS, {}, True),
    "tools-first": ([m("user", "What is 2+3?")], [TOOL_ADD], {}, True),
    "two-calls": ([m("user", "Both"), m("assistant", "Calling.", tool_calls=[
        call("add", {"a": 1, "b": 2}, "abc123XYZ"), call("get_weather", {"place": "Róm"},
                                                         "def456UVW")]),
        m("tool", "3", name="add", tool_call_id="abc123XYZ"),
        m("tool", {"t": [1, "x"]}, name="get_weather", tool_call_id="def456UVW")],
        TOOLS, {}, True),
    "arguments-text": ([m("user", "x"), m("assistant", "", tool_calls=[
        call("add", "{\"a\": 1}")]), m("tool", "ok", tool_call_id="call00001"),
        m("user", "y")], TOOLS, {}, True),
    "parts": ([m("system", [{"type": "text", "text": "Sys "}]), m("user", [
        {"type": "text", "text": "What is "}, {"type": "image", "url": "a.png"},
        {"type": "text", "text": " this?"}]), m("assistant", [{"type": "text", "text": "A cat."}]),
        m("user", "Sure?")], None, {}, True),
    "think": ([m("user", "Q1"), m("assistant", "<think>\nhmm 1\n</think>\n\nA1"), m("user", "Q2"),
               m("assistant", "<think>hmm 2</think>A2")], None, {}, False),
    "reasoning": ([m("system", "S"), m("user", "Q1"), m("assistant", "A1", reasoning_content="R1 "),
                   m("user", "Q2"), m("assistant", "A2", reasoning="\nR2\n")], None, {}, False),
    "no-think": ([m("user", "Q /no_think")], None, {"enable_thinking": False}, True),
    "thinking-tools": ([m("user", "Q"), m("assistant", "", thinking="Let me.", tool_calls=[
        call("add", {"a": 1, "b": 2})]), m("tool", "3", name="add"), m("assistant", "3.")],
        TOOLS, {"enable_thinking": True, "reasoning_effort": "high"}, False),
    "documents": ([m("user", "Cite.")], None, {"documents": [
        {"doc_id": 1, "title": "T1", "text": "Body «1»."}, {"title": "T2", "text": "Two\nlines"}]},
        True),
    "variables": ([m("user", "Hi")], None, {
        "date_string": "01 Jan 2025", "custom_tools": None, "builtin_tools": ["brave_search"],
        "tools_in_user_message": False, "model_identity": "I am T.", "thinking": True,
        "safety_mode": "NONE", "length": 3}, True),
}

PLAIN = ["user", "system", "whole", "edge", "order", "role", "empty"]
STRICT = PLAIN + ["assistant-first", "late-system"]
TOOLED = ["user", "system", "edge", "tools", "two-calls", "none", "tools-first"]

TEMPLATES = {}


def template(name, conversations, text):
    TEMPLATES[name] = (conversations, text)


template("chatml", PLAIN + ["late-system"], """\
{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
{% endif %}""")

template("chatml-default-system", PLAIN, """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- for message in messages %}
    {%- if loop.first and messages[0]['role'] != 'system' -%}
        {{ '<|im_start|>system\nYou are a helpful assistant named Chat.<|im_end|>\n' }}
    {%- endif -%}
    {{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content | trim ~ '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
""")

template("llama2", STRICT, """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\
{% endif %}{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}\
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}\
{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""")

template("llama3", PLAIN, """\
{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + \
'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}\
{{ content }}{% endfor %}{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""")

template("llama31", TOOLED + ["variables"], """\
{{- bos_token }}
{%- if custom_tools is defined and custom_tools %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message comes first, whatever it holds. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n" }}
{%- endif %}
{{- "Knowledge ends: December 2023\\n" }}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "These functions may be called with JSON.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content'] | trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Tools cannot stand in a first user message that is not there") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- "Answer with a JSON call of one of these functions.\\n\\n" }}
    {{- 'Form: {"name": function, "parameters": {argument: value}}. ' }}
    {{- "No variables.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>" }}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("Only one call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
            {{- "<|python_tag|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' + arg_val + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
            {{- ")" }}
        {%- else  %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
            {{- '{"name": "' + tool_call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {%- if builtin_tools is defined %}
            {{- "<|eom_id|>" }}
        {%- else %}
            {{- "<|eot_id|>" }}
        {%- endif %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""")

template("mistral-v1", STRICT, """\
{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 \
== 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') \
}}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}{% else %}\
{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}""")

template("mistral-v3", TOOLED + ["whole", "order", "parts"], """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- Turns must alternate, calls and their results aside. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate user/assistant") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {%- if not message.tool_call_id is defined or message.tool_call_id|length != 9 %}
            {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
        {%- endif %}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""")

template("mistral-nemo", ["user", "system", "edge", "tools", "two-calls"], """\
{%- if messages[0].role == "system" -%}
{%- set sys = messages[0].content -%}{%- set rest = messages[1:] -%}
{%- else -%}{%- set rest = messages -%}{%- endif -%}
{{- bos_token -}}
{%- for message in rest -%}
  {%- if message.role == "user" -%}
    {%- if tools and loop.index0 == (rest | map(attribute="role") | list).index("user") -%}
      [AVAILABLE_TOOLS][
      {%- for t in tools -%}{{ t.function | tojson }}{{ "," if not loop.last }}{%- endfor -%}
      ][/AVAILABLE_TOOLS]
    {%- endif -%}
    {{- "[INST]" ~ (sys ~ "\\n\\n" if sys is defined and loop.last else "") ~ message.content ~ "[/INST]" -}}
  {%- elif message.tool_calls -%}
    [TOOL_CALLS]{{ message.tool_calls | map(attribute="function") | list | tojson }}{{ eos_token }}
  {%- elif message.role == "assistant" -%}
    {{- message.content ~ eos_token -}}
  {%- elif message.role == "tool" -%}
    [TOOL_RESULTS]{"content": {{ message.content | tojson }}, "call_id": "{{ message.tool_call_id }}"}[/TOOL_RESULTS]
  {%- endif -%}
{%- endfor -%}
""")

template("mixtral", STRICT, """\
{{ bos_token }}{% for message in messages %}{% if message.role not in ['user', 'assistant'] and \
not loop.first %}{{ raise_exception('unexpected role ' ~ message.role) }}{% endif %}\
{% if message['role'] == 'system' %}{% set pre = message.content %}{% continue %}\
{% elif message['role'] == 'user' %}{{ ' [INST] ' ~ message['content'] ~ ' [/INST]' }}{% else %}\
{{ ' ' ~ message['content'] ~ ' ' ~ eos_token}}{% endif %}{% endfor %}{{ pre }}""")

template("qwen25", TOOLED + ["whole", "late-system", "arguments-text"], """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Kwen, a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nSignatures stand within <tools></tools> XML tags:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nReturn a json object within <tool_call></tool_call>:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Kwen, a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""")

template("qwen3", ["user", "system", "edge", "tools", "none", "two-calls", "think", "reasoning",
                   "no-think", "thinking-tools", "parts", "arguments-text"], """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""")

template("gemma2", STRICT, """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not \
supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != \
(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate \
user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}\
{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""")

template("gemma3", STRICT + ["parts"], """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""")

template("phi3", PLAIN, """\
{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}\
{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}\
{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}\
{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}""")

template("phi4", PLAIN, """\
{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' \
+ message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}\
{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == \
'assistant') %}{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}""")

template("phi4-mini", ["user", "system", "edge", "role", "tools"], """\
{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and \
message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' \
+ message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + \
message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}\
{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}""")

template("olmo2", PLAIN, """\
{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}\
{{ '<|system|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'user' %}\
{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}\
{% if not loop.last %}{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}{% else %}\
{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}{% endif %}\
{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}""")

template("granite", ["user", "system", "edge", "tools", "documents", "variables"], """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = "Knowledge Cutoff Date: April 2024.
Today's Date: " + strftime_now('%B %d, %Y') + ".
You are Grant." %}
    {%- if tools and documents %}
        {%- set system_message = system_message + " Use tools and documents." %}
    {%- elif tools %}
        {%- set system_message = system_message + " Use the tools." %}
    {%- elif documents %}
        {%- set system_message = system_message + " Only the documents count." %}
    {%- elif thinking %}
        {%- set system_message = system_message + " Think first." %}
    {%- endif %}
    {%- if 'citations' in (controls or []) %}
        {%- set system_message = system_message + ' Cite.' %}
    {%- endif %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>
' }}
{%- if tools %}
    {{- '<|start_of_role|>tools<|end_of_role|>' }}
    {{- tools | tojson(indent=4) }}
    {{- '<|end_of_text|>
' }}
{%- endif %}
{%- if documents %}
    {{- '<|start_of_role|>documents<|end_of_role|>' }}
    {%- for document in documents %}
        {{- 'Document ' + (document['doc_id'] | default(loop.index0) | string) + '
' }}
        {{- document['text'] }}
        {%- if not loop.last %}
            {{- '

'}}
        {%- else %}
            {{- '<|end_of_text|>
' }}
        {%- endif %}
    {%- endfor %}
{%- endif %}
{%- for message in loop_messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>
' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant' }}
            {%- if controls %}
                {{- ' ' + controls | tojson()}}
            {%- endif %}
        {{- '<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}
""")

template("smollm2", PLAIN, """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nYou are a small model.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + \
message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""")

template("smollm3", ["user", "system", "edge", "tools", "think", "no-think", "variables"], """\
{# settings #}
{%- set enable_thinking = enable_thinking if enable_thinking is defined else true -%}
{%- set reasoning_mode = "/think" if enable_thinking else "/no_think" -%}
{%- set xml_tools = xml_tools if xml_tools is defined else tools -%}
{%- if messages and messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}
    {%- set reasoning_mode = "/no_think" -%}
  {%- elif "/think" in system_message -%}
    {%- set reasoning_mode = "/think" -%}
  {%- endif -%}
  {%- set custom_instructions = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{%- generation -%}{%- endgeneration -%}
<|im_start|>system
## Metadata

Today Date: {{ strftime_now("%d %B %Y") }}
Reasoning Mode: {{ reasoning_mode + "\\n\\n" -}}
## Custom Instructions

{% if custom_instructions -%}
  {{- custom_instructions + "\\n\\n" -}}
{%- elif reasoning_mode == "/think" -%}
  {{- "Think, then answer.\\n\\n" -}}
{%- else -%}
  {{- "Answer.\\n\\n" -}}
{%- endif -%}
{%- if xml_tools -%}
  {{- "### Tools\\n\\n" -}}
  {%- set ns = namespace(xml_tool_string="You may call:\\n\\n<tools>\\n") -%}
  {%- for tool in xml_tools[:] -%}
    {%- set ns.xml_tool_string = ns.xml_tool_string ~ (tool.function | string) ~ "\\n" -%}
  {%- endfor -%}
  {{- ns.xml_tool_string + "</tools>" + "\\n\\n" -}}
{%- endif -%}
<|im_end|>
{% for message in messages -%}
  {%- set content = message.content if message.content is string else "" -%}
  {%- if message.role == "user" -%}
    {{ "<|im_start|>" + message.role + "\\n" + content + "<|im_end|>\\n" }}
  {%- elif message.role == "assistant" -%}
    {% generation %}
    {%- if reasoning_mode == "/think" -%}
      {{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
    {%- else -%}
      {{ "<|im_start|>assistant\\n" + "<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
    {%- endif -%}
    {% endgeneration %}
  {%- elif message.role == "tool" -%}
    {{ "<|im_start|>" + "user\\n" + content + "<|im_end|>\\n" }}
  {%- endif -%}
{%- endfor %}
{%- if add_generation_prompt -%}
  {{ "<|im_start|>assistant\\n" if reasoning_mode == "/think" else "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" }}
{%- endif -%}
""")

template("harmony", ["user", "system", "edge", "tools", "two-calls", "none", "reasoning",
                     "thinking-tools", "variables"], """\
{%- macro ts_type(spec, required, in_array=false) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}
            {%- if spec['items']['type'] == "string" -%}{{ "string[]" }}
            {%- elif spec['items']['type'] in ["number", "integer"] -%}{{ "number[]" }}
            {%- else -%}
                {%- set inner = ts_type(spec['items'], required, true) -%}
                {%- if inner == "object | object" or inner|length > 50 -%}{{ "any[]" }}
                {%- else -%}{{ inner + "[]" }}{%- endif -%}
            {%- endif -%}
            {%- if spec.nullable -%}{{ " | null" }}{%- endif -%}
        {%- else -%}{{ "any[]" }}{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}
        {{- spec.type | join(" | ") -}}
    {%- elif spec.oneOf -%}
        {%- for variant in spec.oneOf -%}
            {{- ts_type(variant, required) -}}
            {%- if not loop.last %}{{ " | " }}{% endif -%}
        {%- endfor -%}
    {%- elif spec.type == "string" -%}
        {%- if spec.enum -%}{{ '"' + spec.enum|join('" | "') + '"' }}
        {%- else -%}{{ "string" }}{%- if spec.nullable %}{{ " | null" }}{%- endif -%}{%- endif -%}
    {%- elif spec.type in ["number", "integer"] -%}{{ "number" }}
    {%- elif spec.type == "boolean" -%}{{ "boolean" }}
    {%- elif spec.type == "object" -%}
        {%- if spec.properties -%}
            {{- "{\\n" }}
            {%- for name, prop in spec.properties.items() -%}
                {{- name -}}
                {%- if name not in (spec.required or []) %}{{ "?" }}{%- endif -%}
                {{- ": " }}{{ ts_type(prop, spec.required or []) }}
                {%- if not loop.last %}{{ ", " }}{%- endif -%}
            {%- endfor -%}
            {{- "}" }}
        {%- else -%}{{ "object" }}{%- endif -%}
    {%- else -%}{{ "any" }}{%- endif -%}
{%- endmacro -%}

{%- macro ts_namespace(ns_name, tools) -%}
    {{- "## " + ns_name + "\\n\\nnamespace " + ns_name + " {\\n\\n" }}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- "// " + tool.description + "\\n" }}
        {{- "type " + tool.name + " = " }}
        {%- if tool.parameters and tool.parameters.properties %}
            {{- "(_: {\\n" }}
            {%- for name, spec in tool.parameters.properties.items() %}
                {%- if spec.description %}{{- "// " + spec.description + "\\n" }}{%- endif %}
                {{- name }}
                {%- if name not in (tool.parameters.required or []) %}{{- "?" }}{%- endif %}
                {{- ": " }}{{- ts_type(spec, tool.parameters.required or []) }}
                {%- if spec.default is defined -%}
                    {%- if spec.enum %}{{- ", // default: " + spec.default }}
                    {%- else %}{{- "// default: " + spec.default|tojson }}{%- endif -%}
                {%- endif -%}
                {%- if not loop.last %}{{- ",\\n" }}{%- else %}{{- "\\n" }}{%- endif -%}
            {%- endfor %}
            {{- "}) => any;\\n\\n" }}
        {%- else -%}{{- "() => any;\\n\\n" }}{%- endif -%}
    {%- endfor %}
    {{- "} // namespace " + ns_name }}
{%- endmacro -%}

{%- macro system_text() -%}
    {%- if model_identity is not defined %}{%- set model_identity = "You are Chat." %}{%- endif %}
    {{- model_identity + "\\n" }}{{- "Current date: " + strftime_now("%Y-%m-%d") + "\\n\\n" }}
    {%- if reasoning_effort is not defined %}{%- set reasoning_effort = "medium" %}{%- endif %}
    {{- "Reasoning: " + reasoning_effort + "\\n\\n" }}
    {{- "# Valid channels: analysis, commentary, final." }}
    {%- if tools -%}{{- "\\nCalls to these tools must go to the commentary channel: 'functions'." }}{%- endif -%}
{%- endmacro -%}

{{- "<|start|>system<|message|>" }}{{- system_text() }}{{- "<|end|>" }}
{%- if messages[0].role == "developer" or messages[0].role == "system" %}
    {%- set developer_message = messages[0].content %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set developer_message = "" %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if developer_message or tools %}
    {{- "<|start|>developer<|message|>" }}
    {%- if developer_message %}{{- "# Instructions\\n\\n" }}{{- developer_message }}{{- "\\n\\n" }}{%- endif %}
    {%- if tools -%}{{- "# Tools\\n\\n" }}{{- ts_namespace("functions", tools) }}{%- endif -%}
    {{- "<|end|>" }}
{%- endif %}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in loop_messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "content" in message and message.content is string %}
            {%- if "<|channel|>analysis<|message|>" in message.content or "<|channel|>final<|message|>" in message.content %}
                {{- raise_exception("The content holds a channel of its own.") }}
            {%- endif %}
        {%- endif %}
        {%- if "tool_calls" in message %}
            {%- set future_final_message = namespace(found=false) %}
            {%- for future_message in loop_messages[loop.index:] %}
                {%- if future_message.role == 'assistant' and "tool_calls" not in future_message %}
                    {%- set future_final_message.found = true %}
                {%- endif %}
            {%- endfor %}
            {%- set tool_call = message.tool_calls[0] %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {%- if message.content and message.thinking %}
                {{- raise_exception("Both content and thinking in a message with a call") }}
            {%- elif message.content and not future_final_message.found %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.content + "<|end|>" }}
            {%- elif message.thinking and not future_final_message.found %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant to=" }}
            {{- "functions." + tool_call.name + "<|channel|>commentary " }}
            {{- (tool_call.content_type if tool_call.content_type is defined else "json") + "<|message|>" }}
            {{- tool_call.arguments|tojson }}
            {{- "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {%- if "thinking" in message %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|return|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
            {%- set last_tool_call.name = none %}
        {%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}
            {{- raise_exception("A result without a call.") }}
        {%- endif %}
        {{- "<|start|>functions." + last_tool_call.name }}
        {{- " to=assistant<|channel|>commentary<|message|>" + message.content|tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}
        {{- "<|start|>user<|message|>" + message.content + "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}
""")

template("deepseek-r1", ["user", "system", "edge", "tools", "two-calls", "none", "think"], """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}\
{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}\
{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = \
message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in \
messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + \
message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is \
none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}{%- if not \
ns.is_first %}{{'<｜Assistant｜><｜calls▁begin｜>' + tool['type'] + '<｜sep｜>' + \
tool['function']['name'] + '\n' + '```json' + '\n' + tool['function']['arguments']|string + '\n' + \
'```'}}{%- set ns.is_first = true -%}{%- else %}{{'\n' + tool['function']['name']}}{%- endif %}\
{%- endfor %}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none \
%}{%- if ns.is_tool %}{{'<｜outputs▁end｜>' + message['content'] + '<｜end｜>'}}{%- set ns.is_tool = \
false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set \
content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end｜>'}}\
{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if \
ns.is_output_first %}{{'<｜outputs▁begin｜>' + message['content']|string}}{%- set \
ns.is_output_first = false %}{%- else %}{{'\n' + message['content']|string}}{%- endif %}{%- endif \
%}{%- endfor -%}{% if ns.is_tool %}{{'<｜outputs▁end｜>'}}{% endif %}{% if add_generation_prompt \
and not ns.is_tool %}{{'<｜Assistant｜><think>\n'}}{% endif %}""")

template("command-r", ["user", "system", "edge", "order", "documents", "tools", "variables"], """\
{%- macro param_type(t) -%}
  {%- set map = {'string': 'str', 'number': 'float', 'integer': 'int', 'boolean': 'bool', 'array': 'List', 'object': 'Dict'} -%}
  {%- if t is string -%}{{ map.get(t, t) }}{%- else -%}{{ t | map('string') | join('/') }}{%- endif -%}
{%- endmacro -%}
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = 'You are Comma.' %}{% endif %}
{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' }}{% if safety_mode | default('') | upper == 'NONE' %}\
# Unsafe{% else %}# Safety Preamble{% endif %}

{{ '## User Preamble\n' + system_message }}
{%- if tools %}

## Available Tools
{% for tool in tools %}{% if loop.index0 != 0 %}{{ '\n\n' }}{% endif %}
{{'```python\ndef ' + tool.function.name + '('}}{% for name, p in tool.function.parameters.properties.items() -%}
{% if not loop.first %}, {% endif %}{{ name }}: {% if name not in (tool.function.parameters.required or []) -%}
{{ 'Optional[' + param_type(p.type) + '] = None' }}{% else %}{{ param_type(p.type) }}{% endif %}{% endfor -%}
{{ ') -> List[Dict]:\n    """' }}{{ tool.function.description }}{{ '"""\n    pass\n```' }}{% endfor %}
{%- endif %}
{{- '<|END_OF_TURN_TOKEN|>' }}
{%- for message in loop_messages %}
{%- set content = message['content'] %}
{%- if message['role'] == 'user' %}
{{- '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}
{%- elif message['role'] == 'assistant' %}
{{- '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}
{%- endif %}
{%- endfor %}
{%- if documents %}
{{- '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>' }}
{% for document in documents %}{{ '\nDocument: ' }}{{ loop.index0 }}
{% for key, value in document.items() %}{{ key }}: {{ value }}
{% endfor %}{% endfor %}{{ '</results>' }}{{ '<|END_OF_TURN_TOKEN|>' }}
{%- endif %}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}""")

template("zephyr", PLAIN, """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""")

template("vicuna", PLAIN, """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{{- bos_token }}{% for message in messages -%}
{% if message.role == 'system' -%}{{ message.content ~ ' ' }}
{%- elif message.role == 'user' -%}USER: {{ message.content }}{{ ' ' }}
{%- elif message.role == 'assistant' -%}ASSISTANT: {{ message.content }}{{ eos_token }}{% endif -%}
{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}""")

template("alpaca", PLAIN, """\
{{ (messages|selectattr('role', 'equalto', 'system')|list|last).content|trim if (messages|selectattr('role', 'equalto', 'system')|list) else 'Below is a task.' }}

{% for message in messages %}
{% if message['role'] == 'user' %}
### Instruction:
{{ message['content']|trim -}}
{% if not loop.last %}


{% endif %}
{% elif message['role'] == 'assistant' %}
### Response:
{{ message['content']|trim -}}
{% if not loop.last %}


{% endif %}
{% endif %}
{% endfor %}
{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}
### Response:
{% endif %}""")

template("hermes-tools", TOOLED, """\
{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "list[" +  json_to_python_type(json_spec|items|list|length and json_spec['items']) + "]"}}
{%- elif json_spec.type == "object" %}
    {%- if json_spec.additionalProperties is defined %}
        {{- "dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']'}}
    {%- else %}
        {{- "dict" }}
    {%- endif %}
{%- elif json_spec.type is iterable %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
      {{- json_to_python_type({"type": t}) }}
      {%- if not loop.last %}
        {{- "," }}
      {%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}

{{- bos_token }}
{{- '<|im_start|>system\\n' }}
{{- "You are a function calling model. Signatures: <tools> " }}
{%- for tool in tools or [] %}
    {%- if tool.function is defined %}
        {%- set tool = tool.function %}
    {%- endif %}
    {{- '{"type": "function", "function": ' }}
    {{- '{"name": "' + tool.name + '", ' }}
    {{- '"description": "' + tool.name + '(' }}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {{- param_name + ": " + json_to_python_type(param_fields) }}
        {%- if not loop.last %}
            {{- ", " }}
        {%- endif %}
    {%- endfor %}
    {{- ")" }}
    {%- if tool.return is defined %}
        {{- " -> " + json_to_python_type(tool.return) }}
    {%- endif %}
    {{- " - " + tool.description + "\\n\\n" }}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {%- if loop.first %}
            {{- "    Args:\\n" }}
        {%- endif %}
        {{- "        " + param_name + "(" + json_to_python_type(param_fields) + "): " + param_fields.description|default("?")|trim }}
    {%- endfor %}
    {{- '", "parameters": ' }}
    {%- if tool.parameters.properties | length == 0 %}
        {{- "{}" }}
    {%- else %}
        {{- tool.parameters|tojson }}
    {%- endif %}
    {{- "}" }}
    {%- if not loop.last %}
        {{- "\\n" }}
    {%- endif %}
{%- endfor %}
{{- " </tools><|im_end|>\\n" }}
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "system" or (message.role == "assistant" and message.tool_calls is not defined) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {{- '\\n<tool_call>\\n' }}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '{' }}
            {{- '"name": "' }}
            {{- tool_call.name }}
            {{- '"' }}
            {%- if tool_call.arguments is defined %}
                {{- ', ' }}
                {{- '"arguments": ' }}
                {{- tool_call.arguments|tojson }}
            {%- endif %}
            {{- '}' }}
            {{- '\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}
            {{- '<|im_start|>tool\\n' }}
        {%- endif %}
        {{- '<tool_response>\\n' }}
        {{- message.content }}
        {%- if not loop.last %}
            {{- '\\n</tool_response>\\n' }}
        {%- else %}
            {{- '\\n</tool_response>' }}
        {%- endif %}
        {%- if not loop.last and loop.nextitem.role != "tool" %}
            {{- '<|im_end|>' }}
        {%- elif loop.last %}
            {{- '<|im_end|>' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""")

template("openchat", PLAIN, """\
{{ bos_token }}{% for message in messages %}{{ 'GPT4 Correct ' + message['role'].title() + ': ' + \
message['content'] + '<|end_of_turn|>'}}{% endfor %}{% if add_generation_prompt %}\
{{ 'GPT4 Correct Assistant:' }}{% endif %}""")

template("falcon", PLAIN, """\
{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{% if message['role'] == \
'system' %}{{ 'System: ' }}{% elif message['role'] == 'user' %}{{ 'User: ' }}{% elif \
message['role'] == 'assistant' %}{{ 'Falcon: ' }}{% endif %}{{ message['content'] | replace('\r\n',\
 '\n') | replace('\n\n', '\n') }}{% endfor %}{% if add_generation_prompt %}{{ '\nFalcon:' }}\
{% endif %}""")

template("yi", PLAIN, """\
{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% endif \
%}{% if system_message is defined %}{{ '<|im_start|>system\n' + system_message + '<|im_end|>\n' }}\
{% endif %}{% for message in messages %}{% set content = message['content'] %}{% if \
message['role'] == 'user' %}{{ '<|im_start|>user\n' + content + '<|im_end|>\n<|im_start|>assistant\n' \
}}{% elif message['role'] == 'assistant' %}{{ content + '<|im_end|>' + '\n' }}{% endif %}{% endfor %}""")

template("stablelm", PLAIN, """\
{%- set ns = namespace(first=true) -%}
{%- for message in messages if message.role in ('system', 'user', 'assistant') -%}
{{ '<|' ~ message.role ~ '|>\n' ~ message.content ~ '<|endoftext|>' ~ ('' if loop.last else '\n') }}
{%- endfor -%}{{ '\n<|assistant|>\n' if add_generation_prompt }}""")

template("tulu", PLAIN, """\
{% for message in messages -%}
{%- if message.role == 'assistant' -%}
<|assistant|>
{{ message.content ~ eos_token }}
{% else -%}
<|{{ message.role }}|>
{{ message.content }}
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>
{% endif -%}
""")

template("idefics-parts", ["user", "system", "edge", "parts"], """\
{{ bos_token }}{% for message in messages %}{{message['role'].capitalize()}}{% if \
message['content'] is string %}{{': ' + message.content}}{% elif message['content'][0]['type'] == \
'image' %}{{':'}}{% else %}{{': '}}{% endif %}{% if message['content'] is not string %}{% for line \
in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}{% elif line['type'] == \
'image' %}{{ '<image>' }}{% endif %}{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}\
{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}""")

template("llava-parts", ["user", "parts", "edge", "system"], """\
{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}\
{% endif %}{# Images first #}{% for content in ([message['content']] if message['content'] is \
string else message['content']) | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}\
{% endfor %}{# Then text #}{% if message['content'] is not string %}{% for content in \
message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}\
{% else %}{{ message['content'] + ' ' }}{% endif %}{% endfor %}{% if add_generation_prompt %}\
{{ 'ASSISTANT:' }}{% endif %}""")

template("nemotron", ["user", "system", "edge", "think", "reasoning", "tools"], """\
{%- set ns = namespace(enable_thinking=true, sys='') -%}
{%- for message in messages -%}
  {%- set content = message['content'] -%}
  {%- if message['role'] == 'user' or message['role'] == 'system' -%}
    {%- if '/think' in content -%}{%- set ns.enable_thinking = true -%}
    {%- elif '/no_think' in content -%}{%- set ns.enable_thinking = false -%}{%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if messages[0]['role'] != 'system' -%}<SPECIAL_10>System
{% else -%}<SPECIAL_10>System
{{ messages[0]['content'].replace('/think', '').replace('/no_think', '').strip() }}
{%- endif -%}
{%- if tools -%}{%- for tool in tools -%}{{- '<AVAILABLE_TOOLS>' if loop.first -}}{{- tool.function | tojson -}}
{{- ', ' if not loop.last else '</AVAILABLE_TOOLS>' -}}{%- endfor -%}{%- endif -%}
{%- for message in messages if message['role'] != 'system' -%}
  {%- set content = message['content'] -%}
  {%- if message['role'] == 'user' -%}
    {{- '\\n<SPECIAL_11>User\\n' + content.replace('/think', '').strip() + '\\n' -}}
  {%- elif message['role'] == 'tool' -%}
    {%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<SPECIAL_11>User\\n<TOOL_RESPONSE>[' -}}{%- endif -%}
    {{- content -}}{{- ', ' if not loop.last and loop.nextitem.role == 'tool' else ']</TOOL_RESPONSE>\\n' -}}
  {%- elif message['role'] == 'assistant' -%}
    {%- if '</think>' in content -%}{%- set content = content.split('</think>')[1].strip() -%}{%- endif -%}
    {{- '<SPECIAL_11>Assistant\\n' + content.strip() -}}
    {%- if message.tool_calls -%}<TOOLCALL>[{{ message.tool_calls | map(attribute='function') | map('tojson') | join(', ') }}]</TOOLCALL>{%- endif -%}
    {{- '\\n<SPECIAL_12>\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<SPECIAL_11>Assistant\\n' -}}
  {{- '<think>\\n' if ns.enable_thinking else '<think></think>' -}}
{%- endif -%}
""")

template("internlm", PLAIN, """\
{{ bos_token }}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + \
message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}\
{{ '<|im_start|>assistant\n' }}{% endif %}{{- '' -}}
""")

template("glm-observation", ["user", "system", "edge", "tools", "two-calls", "reasoning"], """\
[gMASK]<sop>
{%- if tools -%}
<|system|>
# Tools
{% for tool in tools %}
{{ tool | tojson(ensure_ascii=False) }}
{%- endfor %}
{%- endif -%}
{%- macro visible_text(content) -%}
    {%- if content is string -%}
        {{- content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- for item in content -%}
            {%- if item is mapping and item.type == 'text' -%}
                {{- item.text }}
            {%- elif item is string -%}
                {{- item }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{- content }}
    {%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(last_user_index=-1) %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {% set ns.last_user_index = loop.index0 -%}
    {%- endif %}
{%- endfor %}
{% for m in messages %}
{%- if m.role == 'user' -%}<|user|>
{{ visible_text(m.content) }}
{{- '/nothink' if (enable_thinking is defined and not enable_thinking and not visible_text(m.content).endswith("/nothink")) else '' -}}
{%- elif m.role == 'assistant' -%}
<|assistant|>
{%- set reasoning_content = '' %}
{%- set content = visible_text(m.content) %}
{%- if m.reasoning_content is string %}
    {%- set reasoning_content = m.reasoning_content %}
{%- elif '</think>' in content %}
    {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
    {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{%- if loop.index0 > ns.last_user_index and reasoning_content -%}
{{ '\\n<think>' + reasoning_content.strip() +  '</think>'}}
{%- else -%}
{{ '\\n<think></think>' }}
{%- endif -%}
{%- if content.strip() -%}
{{ '\\n' + content.strip() }}
{%- endif -%}
{% if m.tool_calls %}
{% for tc in m.tool_calls %}
{%- if tc.function %}
    {%- set tc = tc.function %}
{%- endif %}
{{ '\\n<tool_call>' + tc.name }}
{% set _args = tc.arguments %}
{% for k, v in _args.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson(ensure_ascii=False) if v is not string else v }}</arg_value>
{% endfor %}
</tool_call>{% endfor %}
{% endif %}
{%- elif m.role == 'tool' -%}
{%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
    {{- '<|observation|>' }}
{%- endif %}
{{- '\\n<tool_response>\\n' }}
{{- m.content }}
{{- '\\n</tool_response>' }}
{%- elif m.role == 'system' -%}
<|system|>
{{ visible_text(m.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    <|assistant|>{{- '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}
{%- endif -%}
""")

template("functionary", ["user", "tools", "two-calls", "edge"], """\
{%- set meta = namespace(n=0) -%}
{%- macro schema(p, depth) -%}
{%- for key, value in (p.properties or {}) | dictsort %}
{{ '  ' * depth }}{{ key }}{{ '' if key in p.required | default([]) else '?' }}: {% if value.enum -%}
{{ value.enum | map('tojson') | join(' | ') }}{% elif value.type is string and value.type == 'object' -%}
{ {{- schema(value, depth + 1) }}
{{ '  ' * depth }}}{% else %}{{ value.type if value.type is string else value.type | sort | join(' | ') }}{% endif -%}
{{ ',' if not loop.last }}{% if value.description %} // {{ value.description | truncate(12, true) | escape }}{% endif %}
{%- endfor %}
{%- endmacro -%}
{%- macro each_tool() -%}{% for t in tools or [] %}{{ caller(t.function, loop.index) }}{% endfor %}{%- endmacro -%}
{%- call(t, i) each_tool() -%}
{%- set meta.n = meta.n + 1 %}
// {{ i }} {{ t.description | replace('\\n', ' ') | indent(3) }}
type {{ t.name }} = ({{ schema(t.parameters, 1) }}
);
{%- endcall %}
{% filter trim %}
{% for m in messages %}
{% set text -%}
  {%- for tc in m.tool_calls or [] -%}
  <function={{ tc.function.name }}>{% for k, v in tc.function.arguments.items() %}{{ '%s=%r' % (k, v) }}{{ '&' if not loop.last }}{% endfor %}</function>
  {%- endfor -%}
  {{ m.content if m.content is string else m.content | tojson(indent=1, sort_keys=true) }}
{%- endset %}
{% with role = m.role | capitalize, n = loop.index %}[{{ '{:02d}'.format(n) }} {{ role.center(11, '.') }}] {{ text }}
{% endwith %}
{% endfor %}
{% endfilter %}
({{ meta.n }}){% if add_generation_prompt %}{{ '\\n[' ~ (messages | length + 1) ~ ']' }}{% endif %}
""")

template("exaone", PLAIN, """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}\
{{ '[|system|][|endofturn|]\n' }}{% endif %}{{ '[|' + message['role'] + '|]' + message['content'] }}\
{% if message['role'] == 'user' %}{{ '\n' }}{% else %}{{ '[|endofturn|]\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}""")

template("minicpm-set-block", PLAIN, """\
{% for message in messages %}{% set turn %}{% if message['role'] == 'user' %}<用户>{{ \
message['content'].strip() }}<AI>{% else %}{{ message['content'].strip() }}{% endif %}{% endset %}\
{{ turn if turn | length > 0 else '(空)' }}{% endfor %}""")

template("jamba-documents", ["user", "system", "documents", "tools", "edge"], """\
{%- set ns = namespace(turn='', docs=[], known={}) -%}
{%- for d in documents or [] -%}
  {%- set ns.docs = ns.docs + [d.title ~ ': ' ~ d.text | replace('\\n', ' / ')] -%}
  {%- set ns.known = dict(ns.known, **{d.title: loop.index}) -%}
{%- endfor -%}
{{ bos_token }}<|bom|><|system|> {{ messages[0].content if messages and messages[0].role == 'system' else '' -}}
{%- if ns.docs %}
<documents>
{{ ns.docs | join('\\n') | indent(2, first=true) }}
</documents> {{ ns.known | tojson }}
{%- endif -%}
{%- if tools %} <tool_definitions>
{% for t in tools %}{{ t['function'] | tojson }}
{% endfor %}</tool_definitions>{% endif %}<|eom|>
{%- for group in messages | rejectattr('role', 'equalto', 'system') | batch(2) -%}
  {%- for message in group -%}
    <|bom|><|{{ message.role }}|> {{ message.content }}<|eom|>
  {%- endfor -%}
{%- else -%}(nothing)
{%- endfor -%}
{%- if add_generation_prompt %}<|bom|><|assistant|> {% endif -%}
""")

template("aya-roles", STRICT, """\
{%- set names = {'user': 'USER', 'assistant': 'CHATBOT', 'system': 'SYSTEM'} -%}
{{- bos_token -}}
{%- for role, turns in [] %}{% endfor -%}
{%- for message in messages -%}
{%- if message.role not in names -%}
{{ raise_exception("Unknown role: %s (turn %d of %d)" % (message.role, loop.index, loop.length)) }}
{%- elif not loop.first and loop.previtem.role == message.role -%}
{{ raise_exception('Two turns of ' ~ message.role ~ ' in a row') }}
{%- elif message.role == 'system' and loop.revindex < loop.length -%}
{{ raise_exception('A late system message') }}
{%- endif -%}
{{ '<|START_OF_TURN_TOKEN|><|' ~ names[message.role] ~ '_TOKEN|>' ~ message.content ~ '<|END_OF_TURN_TOKEN|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{%- endif -%}
""")

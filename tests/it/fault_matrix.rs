//! What a client sees of each way in which upstreams fail, and who was called for it: every fault × (at the first link,
//! at the last, at every one) of a chain of three, against real sockets (R004-9 to R004-11, B2 to B4, B7, C14 to C16, I7).
//!
//! The table is `docs/fault-matrix.md`. With `UPDATE_DOCS=1` the test writes it; otherwise it must be what is seen. What
//! must hold whatever the table says is asserted cell by cell.

use std::{fmt::Write as _, time::Duration};

use nemo_tests::{
    client::{Client, End, Response},
    fleet::Fleet,
    links::Links,
    script::{Ending, Script},
};
use serde_json::{Value, json};

const LINKS: usize = 3;
const ROLE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
const TEXT: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":null}]}\n\n";
const BROKEN: &str = "data: {\"id\":\"c\",\"choices\":[{\"delta\":\n\n";
const ERROR: &str =
    "data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\",\"code\":null}}\n\n";
const REST: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// Where in the chain the fault is. Before a last link that fails the others are down, or it would not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Last,
    Every,
}

impl Place {
    const ALL: [Self; 3] = [Self::First, Self::Last, Self::Every];

    fn script(self, link: usize, fault: &Script) -> Script {
        match self {
            Self::First if link == 0 => fault.clone(),
            Self::First => Script::ok(),
            Self::Last if link + 1 < LINKS => Script::status(500),
            Self::Last | Self::Every => fault.clone(),
        }
    }
}

/// When the fault shows, which decides whether another link may still answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    BeforeContent,
    AfterContent,
}

struct Fault {
    name: &'static str,
    stream: bool,
    when: When,
    script: Script,
}

fn faults() -> Vec<Fault> {
    let mut all = Vec::new();
    for stream in [false, true] {
        let mut add = |name, script| all.push(Fault { name, stream, when: When::BeforeContent, script });
        let limited = |seconds: &str| Script::status(429).header("retry-after", seconds).unwrap();
        add("no answer in time", Script::ok().delay(Duration::from_secs(60)));
        add("connection reset", Script::reset());
        add("no HTTP", Script::wire("SSH-2.0-OpenSSH_9.6\r\n"));
        add("500", Script::status(500));
        add("503, retry after 30 s", Script::status(503).header("retry-after", "30").unwrap());
        add("529", Script::status(529));
        add("429, retry after 1 s", limited("1"));
        add("429, retry after 30 s", limited("30"));
        add("401 for our credential", Script::status(401));
    }
    let mut whole = |name, ending| {
        all.push(Fault {
            name,
            stream: false,
            when: When::BeforeContent,
            script: Script::ok().ending(ending),
        });
    };
    whole("answer stalls", Ending::Hang(60));
    whole("answer cut off", Ending::Cut(60));
    for (when, head) in [(When::BeforeContent, ROLE.to_owned()), (When::AfterContent, [ROLE, TEXT].concat())]
    {
        let names = match when {
            When::BeforeContent => [
                "stalls at its beginning",
                "cut off at its beginning",
                "malformed at its beginning",
                "error at its beginning",
                "ends at its beginning",
            ],
            When::AfterContent => {
                ["stalls mid-way", "cut off mid-way", "malformed mid-way", "error mid-way", "ends mid-way"]
            }
        };
        // In frames of its length, so that the fault comes after it has been read.
        let replay = |rest: &[&str]| {
            let body = [&[&*head], rest].concat().concat();
            Script::replay("text/event-stream", body).drip(head.len(), Duration::from_millis(100))
        };
        let scripts = [
            replay(&[TEXT, REST]).ending(Ending::Hang(head.len())),
            replay(&[TEXT, REST]).ending(Ending::Cut(head.len())),
            replay(&[BROKEN, TEXT, REST]),
            replay(&[ERROR]),
            replay(&[]),
        ];
        let rows = names.into_iter().zip(scripts);
        all.extend(rows.map(|(name, script)| Fault { name, stream: true, when, script }));
    }
    all
}

/// What one request led to.
struct Cell {
    response: Response,
    stream: bool,
    calls: Vec<u64>,
}

impl Cell {
    fn error(&self) -> Value {
        let body = if self.response.status == 200 {
            let last = self.response.events().pop().map(|event| event.data).unwrap_or_default();
            serde_json::from_str(&last).unwrap_or_default()
        } else {
            self.response.json().unwrap_or_default()
        };
        body["error"].clone()
    }

    fn code(&self) -> String {
        let error = self.error();
        error["code"].as_str().or(error["type"].as_str()).unwrap_or("-").to_owned()
    }

    fn is_complete(&self) -> bool {
        let text = self.response.text();
        let ends = !self.stream || text.ends_with("data: [DONE]\n\n");
        self.response.status == 200 && self.response.end == End::Complete && ends
    }

    /// The cell of the table.
    fn text(&self) -> String {
        let (response, mut text) = (&self.response, String::new());
        let link = response.header("x-nemo-model").map(|it| it.trim_start_matches("link-").to_owned());
        match (response.status, self.is_complete()) {
            (200, true) => write!(text, "200 from link {}", link.unwrap_or_default()).unwrap(),
            (200, false) => {
                let end = if response.end == End::Complete { "no `[DONE]`" } else { "cut" };
                write!(text, "200 from link {}, `{}`, {end}", link.unwrap_or_default(), self.code()).unwrap();
            }
            (status, _) => write!(text, "{status} `{}`", self.code()).unwrap(),
        }
        if let Some(seconds) = response.header("retry-after") {
            // Of a long one some seconds have gone by, on a slow machine more than on another.
            let seconds: u64 = seconds.parse().unwrap();
            let seconds = if seconds > 5 { seconds.next_multiple_of(5) } else { seconds };
            write!(text, ", retry after {seconds} s").unwrap();
        }
        let calls: Vec<_> = self.calls.iter().map(u64::to_string).collect();
        write!(text, " ({})", calls.join("+")).unwrap();
        text
    }

    /// What holds in every table.
    fn check(&self, fault: &Fault, place: Place) {
        let (response, row) = (&self.response, format!("{} {place:?}: {}", fault.name, self.text()));
        let tried: u64 = self.calls.iter().sum();
        assert_eq!(response.header("x-nemo-attempts"), Some(&*tried.to_string()), "{row}");
        let chain = response.header("x-nemo-chain").unwrap_or_default();
        let listed = chain.split(", ").filter(|it| it.starts_with("custom/link-")).count() as u64;
        assert_eq!(
            listed,
            if self.is_complete() && tried == 1 || chain.is_empty() { 0 } else { tried },
            "{row}: {chain}"
        );
        if fault.when == When::AfterContent {
            // I7: who has begun to answer is the last who is asked.
            assert!(response.status == 200 && !self.is_complete(), "{row}");
            assert!(!response.text().contains("[DONE]") && self.error().is_object(), "{row}");
            assert!(response.text().contains("Hello"), "{row}");
            let reached = if place == Place::Last { vec![1, 1, 1] } else { vec![1, 0, 0] };
            assert_eq!(self.calls, reached, "{row}");
            return;
        }
        if place == Place::First {
            assert!(self.is_complete(), "{row}: {}", response.text());
            assert_eq!(response.header("x-nemo-model"), Some("link-2"), "{row}");
            assert_eq!((self.calls[1], self.calls[2]), (1, 0), "{row}");
            return;
        }
        assert!(self.calls.iter().all(|calls| *calls > 0), "{row}: every link was asked");
        assert_ne!(response.status, 401, "{row}: B3");
        let attempts = self.error()["metadata"]["attempts"].as_array().map_or(0, Vec::len);
        assert_eq!(attempts as u64, tried, "{row}: B6");
        if place == Place::Every && fault.name.starts_with("429") {
            assert_eq!(response.status, 429, "{row}: B2");
            assert!(response.header("retry-after").is_some(), "{row}: B2");
        } else {
            assert_eq!((response.status, &*self.code()), (502, "fallback_chain_exhausted"), "{row}: R004-11");
            assert_eq!(response.header("x-should-retry"), Some("false"), "{row}: B4");
        }
    }
}

/// One place of the fault, for whole answers or streams: upstreams of its own, so that lanes don't disturb each other.
async fn lane(
    links: &Links,
    clients: &[Client],
    place: Place,
    faults: &[Fault],
    stream: bool,
) -> Vec<String> {
    let mut cells = Vec::new();
    for (fault, client) in faults.iter().zip(clients).filter(|(fault, _)| fault.stream == stream) {
        for (at, upstream) in links.upstreams.iter().enumerate() {
            upstream.script_model(&Links::upstream_model(at + 1), place.script(at, &fault.script));
        }
        let before = links.served();
        let request = json!({
            "model": links.name, "stream": stream, "messages": [{ "role": "user", "content": "hi" }],
        });
        let response = client.post("/v1/chat/completions", request.to_string()).await.unwrap();
        let calls = links.served().iter().zip(before).map(|(after, before)| after - before).collect();
        let cell = Cell { response, stream, calls };
        cell.check(fault, place);
        cells.push(cell.text());
    }
    cells
}

const HEAD: &str = "# What a client sees when upstreams fail

Measured by `tests/it/fault_matrix.rs` against a chain of three links, one deployment each, with the default settings but
for shorter timeouts and backoff; `UPDATE_DOCS=1` writes this file anew. In brackets: how often each link was called.

- **First link**: it has the fault, the others are well.
- **Last link**: it has the fault, those before it answer with 500.
- **Every link**: all have the same fault.

Until the first byte of content nothing has gone to the client, so another link can answer; afterwards none can, and the
stream ends with an error event, never as if it were complete. A 502 carries `x-should-retry: false`: everything was tried.
A hint of a second is waited for once; a longer one means the next link. Faults that may pass are met again after every
link was asked, twice by default; credentials, timeouts and rate limits are not.
";

fn table(faults: &[Fault], columns: &[Vec<String>]) -> String {
    let mut text = HEAD.to_owned();
    let mut rows = columns.iter().map(|column| column.iter()).collect::<Vec<_>>();
    for stream in [false, true] {
        let title = if stream { "Streams" } else { "Whole answers" };
        write!(text, "\n## {title}\n\n| fault | first link | last link | every link |\n|---|---|---|---|\n")
            .unwrap();
        let offset = if stream { Place::ALL.len() } else { 0 };
        for fault in faults.iter().filter(|fault| fault.stream == stream) {
            write!(text, "| {} |", fault.name).unwrap();
            for column in &mut rows[offset..offset + Place::ALL.len()] {
                write!(text, " {} |", column.next().unwrap()).unwrap();
            }
            text.push('\n');
        }
    }
    text
}

#[tokio::test]
async fn the_table_of_faults_is_what_clients_see() {
    let fleet = Fleet::start().await.unwrap();
    fleet.admin.put("/settings/routing.backoff_ms", json!({ "value": "20" })).await.unwrap();
    let faults = faults();
    // An organization for each fault: what it breaks is broken for that one alone (R004-23).
    let mut clients = Vec::new();
    for at in 0..faults.len() {
        let tenant = fleet.admin.create_tenant(&format!("fault {at}"), "team").await.unwrap();
        let (_, key) = fleet.admin.issue_key(&tenant, json!({ "name": "key" })).await.unwrap();
        clients.push(fleet.client_with(Some(&key)));
    }
    let quick = json!({ "timeouts": { "first_byte_ms": 2000, "idle_ms": 2000 } });
    let mut lanes = Vec::new();
    for stream in [false, true] {
        for place in Place::ALL {
            let name = format!("{place:?}-{stream}").to_lowercase();
            let links = Links::start(&fleet.admin, &name, LINKS, Some(&quick)).await.unwrap();
            lanes.push((place, stream, links));
        }
    }
    for client in &clients {
        Links::settled(client, &lanes.last().unwrap().2.name).await.unwrap();
    }
    let runs = lanes.iter().map(|(place, stream, links)| lane(links, &clients, *place, &faults, *stream));
    let columns = futures_util::future::join_all(runs).await;
    let table = table(&faults, &columns);
    println!("{table}");
    let path = super::docs::root().join("docs/fault-matrix.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let written = super::docs::read(&path);
    let other = |line: &&str| !written.lines().any(|known| known == *line);
    let differing: Vec<_> = table.lines().filter(other).collect();
    assert!(written == table, "docs/fault-matrix.md is old, see UPDATE_DOCS=1: {differing:#?}");
}

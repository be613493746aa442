//! A client that goes while a request of it runs, for each kind of request: nothing is left, and nobody else notices.

use std::time::Duration;

use fwbroker_tests::{Bench, Client, sha256};
use protocol::{Kind, RevokeScope, wire};

/// Long enough to be interrupted.
fn large() -> Vec<u8> {
    vec![0x42; 3 << 20]
}

/// Sends requests of one kind until one fails, which it does when the client is gone.
fn keep_asking(client: &Client, kind: Kind, path: &str, digest: [u8; 32]) {
    let handle = client.open(path).map(|open| open.handle).unwrap_or_default();
    let mut rounds = 0_u32;
    while rounds < 100_000 {
        rounds += 1;
        let done = match kind {
            Kind::Hello => client.hello().map(drop).is_err_and(|refused| refused.reason.is_none()),
            Kind::Open => client.open(path).map(|open| client.close(open.handle)).is_err(),
            Kind::Query => client.query(handle).is_err(),
            Kind::Read => client.read(handle, 0, 1 << 20).is_err(),
            Kind::Close => client.close(handle).is_err_and(|refused| refused.reason.is_none()),
            Kind::Stage => client.stage(path, Some(digest)).map(|staged| client.unstage(staged.image_id)).is_err(),
            Kind::Unstage => client.unstage(1 << 40).is_err_and(|refused| refused.reason.is_none()),
            Kind::List => client.list().is_err(),
            Kind::Handles => client.handles().is_err(),
            Kind::Sessions => client.sessions().is_err(),
            Kind::Revoke => client.revoke(RevokeScope::Session, 1 << 40).is_err_and(|refused| refused.reason.is_none()),
        };
        if done {
            return;
        }
    }
    panic!("{kind:?} goes on without a client");
}

#[test]
fn a_session_is_listed_as_ended_until_its_last_request_is_done() {
    let bench = Bench::start();
    let content = vec![0x42; 24 << 20];
    let (path, digest) = (bench.write_firmware("large.rom", &content), sha256(&content));
    let bystander = bench.client();
    let mut seen = 0;
    for _ in 0..20 {
        let client = bench.client();
        let (session, process) = (client.session_id(), client.process().clone());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| client.stage(&path, Some(digest)).map(|staged| bystander.unstage(staged.image_id)));
            }
            std::thread::sleep(Duration::from_millis(2));
            process.terminate();
            let listed = || bystander.sessions().unwrap().into_iter().find(|listed| listed.session_id == session);
            while let Some(listed) = listed() {
                assert_eq!(listed.flags & wire::SESSION_ENDED, wire::SESSION_ENDED, "{listed:?}");
                seen += u32::from(listed.requests > 0);
            }
        });
        assert_eq!(bystander.sessions().unwrap().len(), 1);
    }
    println!("seen with requests running: {seen} times");
    drop(bystander);
    bench.finish();
}

#[test]
fn a_client_may_go_while_any_request_of_it_runs() {
    let bench = Bench::start();
    let content = large();
    let (path, digest) = (bench.write_firmware("large.rom", &content), sha256(&content));
    let bystander = bench.client();
    let theirs = bystander.open(&path).unwrap().handle;
    for kind in Kind::ALL {
        for pause in 0..6 {
            let client = bench.client();
            let process = client.process().clone();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| keep_asking(&client, *kind, &path, digest));
                }
                std::thread::sleep(Duration::from_micros(700 * pause));
                process.terminate();
            });
        }
        assert_eq!(bystander.read(theirs, 0, 4).unwrap(), content[..4], "{kind:?}");
        assert_eq!(bystander.handles().unwrap().len(), 1, "{kind:?}: its handles are closed");
        assert_eq!(bystander.sessions().unwrap().len(), 1, "{kind:?}: its sessions are gone");
        for image in bystander.list().unwrap() {
            bystander.unstage(image.image_id).expect("no job is left");
        }
    }
    drop(bystander);
    assert!(bench.try_writer(&path).is_ok());
    bench.finish();
}

//! Blobs are whole and what their name says, or they are not there.

use bytes::Bytes;
use coordinator_tracking::{BlobError, BlobStore, Stored};
use futures::{TryStreamExt, stream};
use std::path::Path;

// Of "hello" and of no bytes.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn bytes(pieces: &[&'static str]) -> impl futures::Stream<Item = Result<Bytes, String>> + use<> {
    stream::iter(
        pieces
            .iter()
            .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
            .collect::<Vec<_>>(),
    )
}

async fn read(store: &BlobStore, sha256: &str) -> Result<Vec<u8>, BlobError> {
    let pieces: Vec<Bytes> = store.get(sha256).await?.try_collect().await?;
    Ok(pieces.concat())
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

#[tokio::test]
async fn what_was_put_is_read_back_and_put_again_is_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).await.unwrap();
    assert!(!store.exists(HELLO).await.unwrap());
    let put = store
        .put(HELLO, bytes(&["he", "", "llo"]), 5)
        .await
        .unwrap();
    assert_eq!(
        put,
        Stored {
            size_bytes: 5,
            existed: false
        }
    );
    assert_eq!(store.size(HELLO).await.unwrap(), Some(5));
    assert_eq!(read(&store, HELLO).await.unwrap(), b"hello");
    let put = store.put(HELLO, bytes(&["hello"]), 5).await.unwrap();
    assert_eq!(
        put,
        Stored {
            size_bytes: 5,
            existed: true
        }
    );
    let wrong = store.put(HELLO, bytes(&["other"]), 5).await;
    assert!(matches!(wrong, Err(BlobError::Mismatch { .. })));
    assert_eq!(read(&store, HELLO).await.unwrap(), b"hello");
    assert!(folder.path().join("2c").join(&HELLO[2..]).is_file());
    store.put(EMPTY, bytes(&[]), 0).await.unwrap();
    assert_eq!(read(&store, EMPTY).await.unwrap(), b"");
}

#[tokio::test]
async fn a_refused_or_broken_upload_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).await.unwrap();
    let wrong = store.put(HELLO, bytes(&["hullo"]), 5).await;
    assert!(matches!(wrong, Err(BlobError::Mismatch { .. })));
    let long = store.put(HELLO, bytes(&["hel", "lo"]), 4).await;
    assert!(matches!(long, Err(BlobError::TooLarge { limit_bytes: 4 })));
    let broken = stream::iter([Ok(Bytes::from_static(b"hel")), Err("reset by peer")]);
    let broken = store.put(HELLO, broken, 5).await;
    assert!(matches!(broken, Err(BlobError::Source(why)) if why == "reset by peer"));
    assert!(!store.exists(HELLO).await.unwrap());
    assert_eq!(files(folder.path()), Vec::<String>::new());
    assert!(matches!(
        read(&store, HELLO).await,
        Err(BlobError::NotFound(_))
    ));
}

#[tokio::test]
async fn only_content_addresses_are_names() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).await.unwrap();
    for bad in [
        "",
        "../../etc/passwd",
        &HELLO[1..],
        &HELLO.to_uppercase(),
        &format!("{}/x", &HELLO[2..]),
    ] {
        assert!(
            matches!(
                store.put(bad, bytes(&["x"]), 9).await,
                Err(BlobError::Name(_))
            ),
            "{bad}"
        );
        assert!(
            matches!(store.exists(bad).await, Err(BlobError::Name(_))),
            "{bad}"
        );
        assert!(
            matches!(read(&store, bad).await, Err(BlobError::Name(_))),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn an_upload_that_a_kill_cut_short_is_never_seen_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).await.unwrap();
    store.put(HELLO, bytes(&["hello"]), 5).await.unwrap();
    std::fs::write(
        folder.path().join("2c").join(format!("{}#1", &EMPTY[2..])),
        b"half",
    )
    .unwrap();
    let store = BlobStore::open(folder.path()).await.unwrap();
    assert_eq!(files(folder.path()), [&HELLO[2..]]);
    assert_eq!(read(&store, HELLO).await.unwrap(), b"hello");
}

#[tokio::test]
async fn two_uploads_of_the_same_bytes_at_once_both_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).await.unwrap();
    let (one, other) = tokio::join!(
        store.put(HELLO, bytes(&["hel", "lo"]), 5),
        store.put(HELLO, bytes(&["hello"]), 5)
    );
    one.unwrap();
    other.unwrap();
    assert_eq!(files(folder.path()), [&HELLO[2..]]);
}

#[tokio::test]
async fn a_large_blob_streams_through_in_pieces() {
    use sha2::Digest;
    let piece = Bytes::from(vec![7_u8; 300_000]);
    let mut hasher = sha2::Sha256::new();
    (0..30).for_each(|_| hasher.update(&piece));
    let sha256: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path()).await.unwrap();
    let pieces = stream::iter((0..30).map(|_| Ok::<_, String>(piece.clone())));
    let put = store.put(&sha256, pieces, u64::MAX).await.unwrap();
    assert_eq!(put.size_bytes, 9_000_000);
    assert_eq!(read(&store, &sha256).await.unwrap(), vec![7_u8; 9_000_000]);
}
